//! What the user sees during long steps: a bar on a terminal, a plain line now and then elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const PLAIN_INTERVAL: Duration = Duration::from_secs(20);

/// A step with a count that goes up. The total is an expectation, and may be wrong.
pub(crate) struct Progress {
    what: String,
    expected: u64,
    done: u64,
    bar: Option<ProgressBar>,
    said: Instant,
}

impl Progress {
    /// `expected` is 0 if nobody knows.
    pub(crate) fn new(what: &str, expected: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = if expected > 0 {
                ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed} (about {eta} left)")
            } else {
                ProgressStyle::with_template("{spinner} {msg} {pos} {elapsed}")
            };
            let bar = ProgressBar::new(expected);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        if bar.is_none() {
            eprintln!("{what} ...");
        }
        Self { what: what.to_owned(), expected, done: 0, bar, said: Instant::now() }
    }

    pub(crate) fn advance(&mut self) {
        self.done += 1;
        // A total that turned out too low grows along, so that the bar never claims to be done.
        self.expected = if self.expected > 0 { self.expected.max(self.done + 1) } else { 0 };
        match &self.bar {
            Some(bar) => {
                bar.set_length(self.expected);
                bar.set_position(self.done);
            }
            None if self.said.elapsed() >= PLAIN_INTERVAL => {
                self.said = Instant::now();
                match self.expected {
                    0 => eprintln!("{}: {}", self.what, self.done),
                    expected => eprintln!("{}: {} of about {expected}", self.what, self.done),
                }
            }
            None => {}
        }
    }

    /// Steps counted; the bar disappears.
    pub(crate) fn finish(self) -> u64 {
        self.done
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
