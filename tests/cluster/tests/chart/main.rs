//! The chart, by the programs that its users have: helm renders it, a real API server takes it, promtool drives its alerts.

mod helm;
mod prometheus;
mod renders;
mod server;
mod values;
