//! Waiting for many things at the same time.

use std::thread;

/// Does `work` with all of `items` at the same time, each on a thread of its own, and gives what came of them in order.
/// One item alone needs no thread. A panic in `work` is a bug of its own; it goes on in the caller's thread.
pub fn at_once<I: Send, T: Send>(items: impl IntoIterator<Item = I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
    let mut items: Vec<I> = items.into_iter().collect();
    if items.len() < 2 {
        return items.pop().map(work).into_iter().collect();
    }
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = items
            .into_iter()
            .map(|item| scope.spawn(move || work(item)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::at_once;

    #[test]
    fn all_run_at_the_same_time_and_come_back_in_order() {
        let all_there = Barrier::new(3);
        let doubled = at_once([1, 2, 3], |number| {
            all_there.wait();
            number * 2
        });
        assert_eq!(doubled, [2, 4, 6]);
        assert!(at_once([], |number: u8| number).is_empty());
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let panic = std::panic::catch_unwind(|| at_once([1, 0], |number: u32| 1 / number));
        assert!(panic.is_err());
    }
}
