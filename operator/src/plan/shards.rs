//! What to do next about the shards of a fleet.
//!
//! Make before break: a shard is retired when ready others cover each of its transactions, never earlier. What is wanted and
//! there already stays as it is. A shard that dies gets a substitute of the same class while its own workload recovers.

use std::collections::{BTreeMap, BTreeSet};

use fleet_api::ResidueClass;
use fleet_api::shard::{Coverage, Transition};

/// Which of the two workloads that a shard can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The shard's own.
    Primary,
    /// The one that stands in while the own is not ready.
    Substitute,
}

impl Role {
    /// The value of the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Substitute => "substitute",
        }
    }

    /// Reads the label.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Primary, Self::Substitute].into_iter().find(|role| role.name() == name)
    }
}

/// One workload of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The shard.
    pub class: ResidueClass,
    /// Its own or the substitute's.
    pub role: Role,
}

impl Key {
    /// The shard's own workload.
    pub fn primary(class: ResidueClass) -> Self {
        Self { class, role: Role::Primary }
    }

    /// The workload that stands in.
    pub fn substitute(class: ResidueClass) -> Self {
        Self { class, role: Role::Substitute }
    }
}

/// Whether a workload upgrades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It has been doing so for these seconds.
    Ready {
        /// Seconds.
        seconds: u64,
    },
    /// It has not been ready yet.
    Starting,
    /// It was ready and has not been for these seconds.
    Lost {
        /// Seconds.
        seconds: u64,
    },
    /// It is well and has nothing to do: its build does not know the next block's rules. A substitute would not, either; a new
    /// revision may.
    Outdated,
}

impl Health {
    fn is_ready(self) -> bool {
        matches!(self, Self::Ready { .. })
    }
}

/// A workload that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The revision of image and options that was applied last.
    pub revision: String,
    /// Whether all its pods have that revision.
    pub rolled_out: bool,
    /// Whether it upgrades.
    pub health: Health,
    /// Whether it has been told to have no pods.
    pub stopped: bool,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The shards, an exact cover.
    pub classes: BTreeSet<ResidueClass>,
    /// The revision of image and options.
    pub revision: String,
    /// No pods at all.
    pub suspend: bool,
    /// Shards that may start at once although others have their transactions.
    pub max_surge: usize,
    /// Ready shards that may be given a new revision at once.
    pub max_unavailable: usize,
    /// Seconds after which a lost shard gets a substitute; `None` for never.
    pub takeover_after: Option<u64>,
}

/// Seconds that a shard is ready again before its substitute goes.
pub const SUBSTITUTE_LINGERS: u64 = 10;

/// One write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Create the workload.
    Start(Key),
    /// Give it the wanted revision, and pods if it was stopped.
    Update(Key),
    /// Take its pods away and keep it.
    Stop(Key),
    /// Delete it.
    Retire(Key),
}

/// The steps that may be taken now, in this order, each independent of whether the others succeed.
pub fn plan(wanted: &Wanted, observed: &BTreeMap<Key, Workload>) -> Vec<Step> {
    let existing: BTreeSet<_> = observed.keys().filter(|key| key.role == Role::Primary).map(|key| key.class).collect();
    if wanted.suspend {
        return suspend(wanted, observed);
    }
    let ready: BTreeSet<_> =
        observed.iter().filter(|(_, workload)| workload.health.is_ready()).map(|(key, _)| key.class).collect();
    let transition = Transition::between(&existing, &wanted.classes);

    let mut steps = starts(wanted, observed, &ready, &transition);
    steps.extend(substitutes(wanted, observed, &ready));
    steps.extend(updates(wanted, observed));
    let retirable = transition.retirable(&ready);
    for (key, workload) in observed {
        let go = match key.role {
            Role::Primary => retirable.contains(&key.class),
            Role::Substitute if wanted.classes.contains(&key.class) => match observed.get(&Key::primary(key.class)) {
                Some(own) => matches!(own.health, Health::Ready { seconds } if seconds >= SUBSTITUTE_LINGERS),
                None => false,
            },
            // The substitute of a class that is not wanted goes when heirs are ready, or when it is of no use.
            Role::Substitute => {
                let heirs: Coverage = wanted.classes.intersection(&ready).copied().collect();
                !workload.health.is_ready() || heirs.covered.covers(key.class.mask())
            }
        };
        if go {
            steps.push(Step::Retire(*key));
        }
    }
    steps
}

/// Without pods nothing is covered, so nothing is lost by removing what is not wanted.
fn suspend(wanted: &Wanted, observed: &BTreeMap<Key, Workload>) -> Vec<Step> {
    let step = |(key, workload): (&Key, &Workload)| {
        if key.role == Role::Substitute || !wanted.classes.contains(&key.class) {
            Some(Step::Retire(*key))
        } else {
            (!workload.stopped).then_some(Step::Stop(*key))
        }
    };
    observed.iter().filter_map(step).collect()
}

fn starts(
    wanted: &Wanted,
    observed: &BTreeMap<Key, Workload>,
    ready: &BTreeSet<ResidueClass>,
    transition: &Transition,
) -> Vec<Step> {
    let owned = ready.iter().copied().collect::<Coverage>().covered;
    let is_spare = |class: ResidueClass| owned.covers(class.mask());
    // What waits to be ready while others have its transactions.
    let starting = transition.kept.iter().filter(|class| {
        let own = observed.get(&Key::primary(**class));
        own.is_some_and(|own| own.health == Health::Starting) && !ready.contains(class) && is_spare(**class)
    });
    let room = wanted.max_surge.saturating_sub(starting.count());
    transition.startable(ready, room).into_iter().map(|class| Step::Start(Key::primary(class))).collect()
}

fn substitutes(wanted: &Wanted, observed: &BTreeMap<Key, Workload>, ready: &BTreeSet<ResidueClass>) -> Vec<Step> {
    let Some(after) = wanted.takeover_after else { return Vec::new() };
    let owned = ready.iter().copied().collect::<Coverage>().covered;
    let needs_one = |class: &&ResidueClass| {
        let own = observed.get(&Key::primary(**class)).map(|own| own.health);
        matches!(own, Some(Health::Lost { seconds }) if seconds >= after)
            && !observed.contains_key(&Key::substitute(**class))
            && !owned.covers(class.mask())
    };
    wanted.classes.iter().filter(needs_one).map(|class| Step::Start(Key::substitute(*class))).collect()
}

fn updates(wanted: &Wanted, observed: &BTreeMap<Key, Workload>) -> Vec<Step> {
    let of_interest = || observed.iter().filter(|(key, _)| wanted.classes.contains(&key.class));
    let is_stale = |workload: &Workload| workload.revision != wanted.revision || workload.stopped;
    // What is not ready anyway loses nothing by a new revision: a bad image must not block its own repair. But it does use up
    // the room for others, so that a bad revision stops after the first shards.
    let mut room = wanted.max_unavailable;
    for (key, workload) in of_interest() {
        if key.role == Role::Primary && !is_stale(workload) && !(workload.health.is_ready() && workload.rolled_out) {
            room = room.saturating_sub(1);
        }
    }
    let mut steps = Vec::new();
    for (key, workload) in of_interest().filter(|(_, workload)| is_stale(workload)) {
        if !workload.health.is_ready() || key.role == Role::Substitute {
            steps.push(Step::Update(*key));
        } else if room > 0 {
            room -= 1;
            steps.push(Step::Update(*key));
        }
    }
    steps
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
