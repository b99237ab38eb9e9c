//! Progress of jobs: a bar each on a terminal, one line for each change otherwise (a log, a pipe).

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Steps of a bar: finer than a terminal's columns.
const STEPS: u64 = 1000;

/// Where progress is shown.
#[derive(Debug)]
pub struct Board {
    bars: Option<MultiProgress>,
    width: usize,
    started: Instant,
}

/// One job on the board.
#[derive(Debug)]
pub struct Line {
    name: String,
    bar: Option<ProgressBar>,
    width: usize,
    started: Instant,
    shown: Mutex<String>,
}

impl Board {
    /// Bars when standard error is a terminal. `width` is that of the longest name.
    pub fn new(width: usize) -> Self {
        Self::with_bars(width, std::io::stderr().is_terminal())
    }

    fn with_bars(width: usize, bars: bool) -> Self {
        Self { bars: bars.then(MultiProgress::new), width, started: Instant::now() }
    }

    /// Adds a job.
    pub fn line(&self, name: impl Into<String>) -> Line {
        let name = name.into();
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(STEPS));
            // The template is ours: a wrong one is a bug that the first run shows, and the default style still works.
            let template = format!("{{prefix:{}}} {{bar:24}} {{elapsed:>4}}  {{msg}}", self.width);
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Line { name, bar, width: self.width, started: self.started, shown: Mutex::new(String::new()) }
    }

    /// Says something above the bars.
    pub fn say(&self, text: &str) {
        match &self.bars {
            // A terminal that went away is no reason to stop proving.
            Some(bars) => drop(bars.println(text)),
            None => eprintln!("{text}"),
        }
    }
}

impl Line {
    /// Shows where the job is: `fraction` from 0 to 1, `what` in a few words. On no terminal, only another `what` is news.
    pub fn update(&self, fraction: f64, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(steps(fraction));
            bar.set_message(what.to_owned());
        } else if let Some(line) = self.news(what) {
            eprintln!("{line}");
        }
    }

    /// The job is over.
    pub fn finish(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.abandon_with_message(what.to_owned()),
            None => self.update(1.0, what),
        }
    }

    /// The job is over and all is well: the bar is full.
    pub fn done(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(STEPS);
        }
        self.finish(what);
    }

    fn news(&self, what: &str) -> Option<String> {
        let mut shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *shown == what {
            return None;
        }
        what.clone_into(&mut shown);
        Some(format!("{:7.1} s  {:width$}  {what}", self.started.elapsed().as_secs_f64(), self.name, width = self.width))
    }
}

fn steps(fraction: f64) -> u64 {
    let clamped = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
    (clamped * STEPS as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_only_changes_are_lines() {
        let line = Board::with_bars(9, false).line("job");
        assert!(line.news("queued").is_some_and(|text| text.ends_with("s  job        queued")));
        assert_eq!(None, line.news("queued"));
        assert!(line.news("proving").is_some());
        assert!(line.news("queued").is_some(), "back in the queue is news");
    }

    #[test]
    fn a_fraction_from_elsewhere_never_leaves_the_bar() {
        assert_eq!([0, 0, 500, STEPS, 0], [-1.0, 0.0, 0.5, 7.0, f64::NAN].map(steps));
    }
}
