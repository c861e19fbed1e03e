//! Rows of logits to several threads, while the adapter computes the next.

use crate::engine::Logits;
use crate::error::Error;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

/// Rows that a thread takes at once.
const TASK_ROWS: usize = 8;

/// Tasks that wait at most: the reader waits for the judges then, so that memory is bounded.
const WAITING: usize = 32;

/// Where a reader puts the logits of a step, with the number of its first row.
pub(super) type Sink<'a> = &'a mut dyn FnMut(usize, Logits) -> Result<(), Error>;

struct Task {
    logits: Arc<Logits>,
    rows: Range<usize>,
    /// The number of the step's first row among all.
    first: usize,
}

/// Calls `each` once for every row that `read` hands over, with its number, itself and memory to use again, on as many
/// threads as there are cores; what it returned, by number.
///
/// # Errors
/// The first of `each`, or that of `read`.
///
/// # Panics
/// If `read` leaves out one of `rows`.
pub(super) fn judge<T: Send>(
    rows: usize,
    each: impl Fn(usize, &[f32], &mut Vec<f32>) -> Result<T, Error> + Sync,
    read: impl FnOnce(Sink<'_>) -> Result<(), Error>,
) -> Result<Vec<T>, Error> {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let (sender, receiver) = sync_channel::<Task>(WAITING);
    let receiver = Mutex::new(receiver);
    let failed = AtomicBool::new(false);
    let work = || {
        let (mut met, mut scratch, mut failure) = (Vec::new(), Vec::new(), None);
        loop {
            // The lock is held while waiting; the others wait for it instead.
            let task = receiver.lock().recv();
            let Ok(Task { logits, rows, first }) = task else { break };
            for row in rows {
                if failed.load(Ordering::Relaxed) {
                    break;
                }
                match each(first + row, &logits.row(row), &mut scratch) {
                    Ok(value) => met.push((first + row, value)),
                    Err(error) => {
                        failed.store(true, Ordering::Relaxed);
                        failure = Some(error);
                    }
                }
            }
        }
        failure.map_or(Ok(met), Err)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut sink = |first: usize, logits: Logits| {
            let logits = Arc::new(logits);
            let all = logits.rows();
            for start in (0..all).step_by(TASK_ROWS) {
                let task = Task { logits: logits.clone(), rows: start..all.min(start + TASK_ROWS), first };
                sender.send(task).expect("the receiver outlives the reader");
            }
            if failed.load(Ordering::Relaxed) {
                return Err(Error::Failed { message: "the judge failed".to_owned() });
            }
            Ok(())
        };
        let was_read = read(&mut sink);
        drop(sender);
        let mut all: Vec<Option<T>> = Vec::new();
        all.resize_with(rows, || None);
        let mut failure = None;
        for worker in workers {
            match worker.join().expect("judges return their errors") {
                Ok(met) => met.into_iter().for_each(|(row, value)| all[row] = Some(value)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(was_read, Err)?;
        Ok(all.into_iter().map(|value| value.expect("every row was judged")).collect())
    })
}
