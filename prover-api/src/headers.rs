//! Header names of the API, in lower case as HTTP/2 wants them.

/// A [`crate::Priority`] by name.
pub const PRIORITY: &str = "x-priority";
/// `true` or `1`: not on a GPU, as long as the pod has a CPU prover.
pub const FORCE_CPU: &str = "x-force-cpu";
/// When the caller stops waiting: seconds from now, or an RFC 3339 time.
pub const DEADLINE: &str = "x-deadline";
/// A [`crate::JobKind`] by name.
pub const JOB_KIND: &str = "x-job-kind";
/// Names a client, at most 64 visible ASCII characters: who posted with `respond-async` under this name cancels with it, and
/// other clients that want the same proof are not concerned.
pub const CLIENT_ID: &str = "x-client-id";
/// In answers: the exact log2 padded height.
pub const LOG2_PADDED_HEIGHT: &str = "x-log2-padded-height";
/// In answers: the job's id. In requests, the same if the caller knows it: a pod that drains takes no new jobs, but lets callers
/// join one that runs, and tells by this header before the upload which it is.
pub const JOB_ID: &str = "x-job-id";
