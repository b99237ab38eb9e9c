//! Where a running fleet is shown: a table that is drawn anew on a terminal, lines otherwise.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::record::FleetRecord;
use super::sight::{Counts, Sight, UpgraderAnswer};
use super::supervisor::Event;
use super::table::{provers, summary, upgraders};

/// Rows of each kind on a terminal.
const ROWS: usize = 12;

/// Between two summaries where there is no terminal, if something has changed.
const SUMMARY_EVERY: Duration = Duration::from_secs(30);

/// What the upgraders counted, restarts notwithstanding: each counts from its start.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    now: Vec<Counts>,
    before: Vec<Counts>,
}

impl Totals {
    /// Takes in what was seen, and gives the counts of each upgrader since the fleet's start.
    pub fn add(&mut self, sight: &Sight) -> Vec<Counts> {
        self.now.resize(sight.upgraders.len(), Counts::default());
        self.before.resize(sight.upgraders.len(), Counts::default());
        for ((report, now), before) in sight.upgraders.iter().zip(&mut self.now).zip(&mut self.before) {
            let UpgraderAnswer::Up(state) = &report.answer else {
                // Its numbers stay; what it was doing, it is not doing now.
                now.in_progress = 0.0;
                continue;
            };
            // Counters only grow: one that is less was started again.
            if state.counts.upgrades < now.upgrades || state.counts.fees_submitted < now.fees_submitted {
                before.upgrades += now.upgrades;
                before.fees_submitted += now.fees_submitted;
                before.fees_mined += now.fees_mined;
            }
            *now = state.counts;
        }
        let sum = |(now, before): (&Counts, &Counts)| Counts {
            upgrades: now.upgrades + before.upgrades,
            fees_submitted: now.fees_submitted + before.fees_submitted,
            fees_mined: now.fees_mined + before.fees_mined,
            ..*now
        };
        self.now.iter().zip(&self.before).map(sum).collect()
    }
}

/// Where it is shown.
#[derive(Debug)]
pub struct Display {
    live: Option<ProgressBar>,
    began: Instant,
    width: usize,
    summed_up: Option<Instant>,
    last: String,
}

impl Display {
    /// On standard output. `width` is that of the longest name.
    pub fn new(width: usize) -> Self {
        let live = io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            // The template is ours, and right; the default would show the table, too.
            bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        Self { live, began: Instant::now(), width, summed_up: None, last: String::new() }
    }

    /// Something that happened.
    pub fn event(&self, event: &Event) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.say(&format!("{seconds:8.1} s  {:width$}  {}", event.name, event.text, width = self.width));
    }

    /// A line.
    pub fn say(&self, line: &str) {
        match &self.live {
            Some(live) => live.println(line),
            // Whoever read it is gone; the fleet is not.
            None => drop(writeln!(io::stdout(), "{line}")),
        }
    }

    /// How the fleet is now. Without a terminal that is said from time to time.
    pub fn show(&mut self, record: &FleetRecord, sight: &Sight, counts: &[Counts]) {
        let line = summary(record, sight, counts).line();
        if let Some(live) = &self.live {
            let rows = [line, upgraders(record, sight, counts, ROWS), provers(record, sight, ROWS)];
            live.set_message(format!("\n{}", rows.join("\n\n")));
            return;
        }
        let due = self.summed_up.is_none_or(|last| last.elapsed() >= SUMMARY_EVERY);
        if due && line != self.last {
            self.say(&format!("{:8.1} s  {line}", self.began.elapsed().as_secs_f64()));
            self.last = line;
            self.summed_up = Some(Instant::now());
        }
    }

    /// Takes the table off the terminal, and leaves a last line in its place.
    pub fn finish(&self, last: &str) {
        if let Some(live) = &self.live {
            live.finish_and_clear();
        }
        drop(writeln!(io::stdout(), "{last}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::sight::{UpgraderReport, UpgraderState};
    use super::*;

    fn sight(answer: UpgraderAnswer) -> Sight {
        let report = UpgraderReport { name: "one".to_owned(), class: None, url: String::new(), answer };
        Sight { asked: Instant::now(), ready: vec![], upgraders: vec![report], pods: vec![] }
    }

    fn up(upgrades: f64, fees: f64) -> Sight {
        let counts = Counts { upgrades, fees_submitted: fees, fees_mined: fees / 2.0, in_progress: 1.0, mempool: 3.0 };
        sight(UpgraderAnswer::Up(UpgraderState { counts, ..UpgraderState::default() }))
    }

    #[test]
    fn an_upgrader_that_dies_takes_no_fees_with_it() {
        let mut totals = Totals::default();
        let total = |counts: Vec<Counts>| (counts[0].upgrades, counts[0].fees_submitted, counts[0].in_progress);
        assert_eq!(total(totals.add(&up(3.0, 1.5))), (3.0, 1.5, 1.0));
        assert_eq!(total(totals.add(&sight(UpgraderAnswer::Down { error: String::new() }))), (3.0, 1.5, 0.0));
        assert_eq!(total(totals.add(&up(0.0, 0.0))), (3.0, 1.5, 1.0));
        assert_eq!(total(totals.add(&up(2.0, 0.5))), (5.0, 2.0, 1.0));
        assert_eq!(total(totals.add(&up(4.0, 1.0))), (7.0, 2.5, 1.0));
    }
}
