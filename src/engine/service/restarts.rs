//! How often an engine starts anew before it gives up for a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time in which starts are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// How long each start of a window waits: a driver that has just reset its adapter may need a moment, and an owner that ends
/// with the failure has said so by then.
const DELAYS: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];

/// The latest starts.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    times: VecDeque<Instant>,
}

impl Restarts {
    /// When to start after a failure at `now`.
    ///
    /// # Errors
    /// From when on a start is allowed again, where the window has had its number of them.
    pub(super) fn next(&mut self, now: Instant) -> Result<Instant, Instant> {
        self.times.retain(|&time| time + WINDOW > now);
        match (DELAYS.get(self.times.len()), self.times.front()) {
            (None, Some(&oldest)) => Err(oldest + WINDOW),
            (delay, _) => {
                let at = now + delay.copied().unwrap_or_default();
                self.times.push_back(at);
                Ok(at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_three_starts_each_after_a_longer_wait() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let soon = |seconds| after(seconds) + DELAYS[0];
        let mut restarts = Restarts::default();
        assert_eq!(restarts.next(after(0)), Ok(soon(0)));
        assert_eq!(restarts.next(after(1)), Ok(after(2)));
        assert_eq!(restarts.next(after(4)), Ok(after(9)));
        assert_eq!(restarts.next(after(20)), Err(soon(60)));
        assert_eq!(restarts.next(after(60)), Err(soon(60)));
        assert_eq!(restarts.next(after(61)), Ok(after(66)), "the first has left the window");
        assert_eq!(restarts.next(after(61)), Err(after(62)));
        assert_eq!(restarts.next(after(200)), Ok(soon(200)));
    }
}
