//! Compiling ahead, so that no time holds a compilation.

use super::Collector;
use crate::tune::problem::{Choice, Problem, Subject};
use crate::tune::rig::Rig;
use std::sync::Mutex;

/// What is compiled between two looks at the clock.
const BATCH: usize = 8;

impl Collector<'_> {
    /// Compiles what choices of opened shapes run. What a compiler refuses is met again where it is measured.
    pub(super) fn warm(&mut self, what: &str, jobs: Vec<(&Subject, &mut Problem, Vec<Choice>)>) {
        let mut fresh: Vec<(&Subject, Choice)> = Vec::new();
        let mut variants = Vec::new();
        for (subject, problem, choices) in jobs {
            for choice in choices {
                let Ok(run) = problem.variants(&mut self.rig, &choice) else { continue };
                let before = variants.len();
                variants.extend(run.into_iter().filter(|variant| self.warmed.insert(variant.clone())));
                if variants.len() > before {
                    fresh.push((subject, choice));
                }
            }
        }
        let all = fresh.len();
        for batch in variants.chunks(2 * BATCH) {
            if self.is_over() {
                return;
            }
            let _ = self.rig.gpu.compile(batch, |_, _| ());
        }
        // A software adapter compiles when a kernel first runs: half here and half by another opening, whose work the driver keeps on
        // disk for this one.
        let Some(mut helper) = self.helper.take() else { return };
        for (done, batch) in fresh.chunks(BATCH).enumerate() {
            if self.is_over() {
                break;
            }
            self.say(&format!("{what}: compiling {} of {all}", done * BATCH));
            let queue = Mutex::new((0..batch.len()).collect::<Vec<_>>());
            let next = || queue.lock().ok().and_then(|mut queue| queue.pop());
            let work = |rig: &mut Rig| {
                let mut done = Vec::new();
                while let Some(at) = next() {
                    batch[at].0.warm(rig, &batch[at].1);
                    done.push(at);
                }
                done
            };
            let theirs = std::thread::scope(|scope| {
                let theirs = scope.spawn(|| work(&mut helper));
                work(&mut self.rig);
                theirs.join().unwrap_or_default()
            });
            theirs.into_iter().for_each(|at| batch[at].0.warm(&mut self.rig, &batch[at].1));
        }
        self.helper = Some(helper);
    }
}
