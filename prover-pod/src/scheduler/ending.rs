//! How wishes, runs and jobs end.

use std::collections::{HashSet, VecDeque};

use prover_api::{JobId, JobState};

use super::job::{Body, Phase};
use super::state::Scheduler;
use super::{BodyId, Effect, Failure, Interest, InterestId, JobView, Outcome, Time, WorkerId};

impl Scheduler {
    pub(super) fn remove_interest(&mut self, id: JobId, interest: InterestId) -> Option<Interest> {
        let gone = self.jobs.get_mut(&id)?.interests.remove(&interest)?;
        if let Some(deadline) = gone.deadline {
            self.deadlines.remove(&(deadline, interest, id));
        }
        Some(gone)
    }

    /// Ends the job when nobody wants it any more. Bodies that only the leavers brought go, except the one that runs.
    pub(super) fn after_interests_left(&mut self, now: Time, id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.interests.is_empty() {
            self.leave_worker(now, id, effects);
            self.finish(now, id, JobState::Cancelled, &Outcome::Cancelled, effects);
            return;
        }
        let wanted: HashSet<BodyId> = job.interests.values().map(|interest| interest.body).collect();
        let front = job.body().id;
        let (keep, drop): (VecDeque<Body>, VecDeque<Body>) =
            job.bodies.iter().partition(|body| body.id == front || wanted.contains(&body.id));
        job.bodies = keep;
        for body in drop {
            self.body_bytes -= body.bytes;
            effects.push(Effect::DropBody { job: id, body: body.id });
        }
        self.reprioritize(id);
        effects.push(Effect::Changed { job: id });
    }

    pub(super) fn retry(&mut self, now: Time, id: JobId, worker: WorkerId, failure: Failure, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.attempts += 1;
        job.avoid = Some(worker);
        job.home = None;
        if job.attempts >= self.config.max_attempts {
            self.fail_body(now, id, failure, effects);
        } else {
            self.wait_again(now, id, effects);
        }
    }

    /// The front body failed for good: its callers hear so, the next body gets its own run, on another pod if this one drains.
    pub(super) fn fail_body(&mut self, now: Time, id: JobId, failure: Failure, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let body = job.body();
        let others = job.interests.values().any(|interest| interest.body != body.id);
        if !others {
            self.finish(now, id, JobState::Failed, &Outcome::Failed(failure), effects);
            return;
        }
        let callers: Vec<InterestId> =
            job.interests.iter().filter(|(_, i)| i.body == body.id).map(|(&interest, _)| interest).collect();
        job.bodies.pop_front();
        job.attempts = 0;
        job.avoid = None;
        job.log2_padded_height = None;
        job.home = None;
        job.phase = Phase::Idle;
        self.body_bytes -= body.bytes;
        for interest in callers {
            self.remove_interest(id, interest);
            effects.push(Effect::Answer { interest, job: id, outcome: Outcome::Failed(failure.clone()) });
        }
        effects.push(Effect::DropBody { job: id, body: body.id });
        self.wait_again(now, id, effects);
        self.after_interests_left(now, id, effects);
    }

    /// Callers whose own limit is below the height, now that it is known, hear so; others are not concerned.
    pub(super) fn refuse_by_own_limit(&mut self, now: Time, id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(height) = job.log2_padded_height else { return };
        let refused: Vec<(InterestId, u8)> = job
            .interests
            .iter()
            .filter_map(|(&id, interest)| Some((id, interest.max_log2_padded_height.filter(|&limit| limit < height)?)))
            .collect();
        let Some(most) = refused.iter().map(|&(_, limit)| limit).max() else { return };
        if refused.len() == job.interests.len() {
            // Nobody is left: the job itself failed, and callers who only follow its status must hear why.
            self.leave_worker(now, id, effects);
            self.finish(
                now,
                id,
                JobState::Failed,
                &Outcome::Failed(Failure::TooBig { log2_padded_height: height, limit: most }),
                effects,
            );
            return;
        }
        for &(interest, limit) in &refused {
            self.remove_interest(id, interest);
            let outcome = Outcome::Failed(Failure::TooBig { log2_padded_height: height, limit });
            effects.push(Effect::Answer { interest, job: id, outcome });
        }
        self.after_interests_left(now, id, effects);
    }

    /// Ends a job that no worker of this pod could ever take.
    pub(super) fn refuse_too_big(&mut self, now: Time, id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(height) = job.log2_padded_height else { return };
        let limit = match self.route_of(job) {
            Some(Ok(_)) => return,
            Some(Err(limit)) => limit,
            // No real prover: that of the mock networks, or none that could take anything.
            None => match self.workers.values().filter(|worker| worker.counts()).map(|worker| self.largest_on(worker)).max() {
                Some(limit) if height > limit => limit,
                _ => return,
            },
        };
        self.leave_worker(now, id, effects);
        self.fail_body(now, id, Failure::TooBig { log2_padded_height: height, limit }, effects);
    }

    /// The same for all that wait, when what the pod can take has changed.
    pub(super) fn refuse_all_too_big(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let waiting: Vec<JobId> = self.waiting.iter().map(|&(_, _, id)| id).collect();
        for id in waiting {
            self.refuse_too_big(now, id, effects);
        }
    }

    /// Ends the job: every interest gets `outcome`, bodies go, the status is remembered.
    pub(super) fn finish(&mut self, now: Time, id: JobId, state: JobState, outcome: &Outcome, effects: &mut Vec<Effect>) {
        let Some(mut view) = self.view(id) else { return };
        self.release_slot(id);
        self.dequeue(id);
        let Some(mut job) = self.jobs.remove(&id) else { return };
        job.timings.ended = Some(now);
        for (interest, wish) in std::mem::take(&mut job.interests) {
            if let Some(deadline) = wish.deadline {
                self.deadlines.remove(&(deadline, interest, id));
            }
            effects.push(Effect::Answer { interest, job: id, outcome: outcome.clone() });
        }
        for body in &job.bodies {
            self.body_bytes -= body.bytes;
            effects.push(Effect::DropBody { job: id, body: body.id });
        }
        view.state = state;
        view.position = None;
        view.timings = job.timings;
        view.interests = 0;
        if let Outcome::Failed(failure) = outcome {
            view.failure = Some(failure.clone());
        }
        view.given_back = *outcome == Outcome::Draining;
        self.remember(id, view);
        effects.push(Effect::Changed { job: id });
    }

    pub(super) fn remember(&mut self, id: JobId, view: JobView) {
        if self.history.insert(id, view).is_none() {
            self.history_order.push_back(id);
        }
        while self.history_order.len() > self.config.history {
            if let Some(oldest) = self.history_order.pop_front() {
                self.history.remove(&oldest);
            }
        }
    }
}
