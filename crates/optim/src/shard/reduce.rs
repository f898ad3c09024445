//! Sums over ranks.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Why the ranks did not come together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReduceError {
    /// A rank brought another number of values.
    #[error(
        "rank {rank} reduces {have} values, the others {want}: build every rank from one plan and partition"
    )]
    Length {
        /// The rank.
        rank: usize,
        /// Its values.
        have: usize,
        /// What the first rank brought.
        want: usize,
    },
    /// A rank has left.
    #[error("rank {rank} has left in the middle of a step: restart all ranks from the last checkpoint")]
    Gone {
        /// The rank.
        rank: usize,
    },
    /// A rank did not come in time.
    #[error("rank {rank} did not come within {seconds} s: check that every rank takes the same steps")]
    Timeout {
        /// The first rank that is missing.
        rank: usize,
        /// How long the others waited.
        seconds: u64,
    },
    /// The transport failed.
    #[error("the sum over ranks failed: {0}")]
    Transport(String),
}

/// A sum over all ranks. Implement it over MPI, NCCL or sockets; every rank must get the same bits.
pub trait Reduce {
    /// This rank, from 0.
    fn rank(&self) -> usize;
    /// All ranks.
    fn ranks(&self) -> usize;
    /// Replaces the values by their sums over all ranks. Every rank calls it as often and with as many values.
    ///
    /// # Errors
    /// [`ReduceError`]; the values are then unspecified.
    fn all_reduce_sum(&mut self, values: &mut [f64]) -> Result<(), ReduceError>;
    /// Bytes that this rank has handed over so far.
    fn payload_bytes(&self) -> u64;
}

/// The only rank.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Reduce for Alone {
    fn rank(&self) -> usize {
        0
    }
    fn ranks(&self) -> usize {
        1
    }
    fn all_reduce_sum(&mut self, _values: &mut [f64]) -> Result<(), ReduceError> {
        Ok(())
    }
    fn payload_bytes(&self) -> u64 {
        0
    }
}

#[derive(Debug, Default)]
struct Round {
    /// What each rank brought to the round that is filling.
    brought: Vec<Option<Vec<f64>>>,
    /// Sums of the round that is being read, and how many ranks have still to read them.
    sums: Option<Result<Arc<Vec<f64>>, ReduceError>>,
    unread: usize,
    gone: Option<usize>,
}

#[derive(Debug)]
struct Meeting {
    round: Mutex<Round>,
    changed: Condvar,
    timeout: Duration,
}

/// One rank of several in this process, each on a thread of its own.
///
/// Sums are taken in the order of the ranks, whoever comes first: the same bits in every run.
#[derive(Debug)]
pub struct InProcess {
    rank: usize,
    ranks: usize,
    bytes: u64,
    meeting: Arc<Meeting>,
}

impl InProcess {
    /// All ranks of a group. A rank that waits longer than the timeout gets an error.
    pub fn group(ranks: usize, timeout: Duration) -> Vec<InProcess> {
        let round = Mutex::new(Round { brought: vec![None; ranks], ..Round::default() });
        let meeting = Arc::new(Meeting { round, changed: Condvar::new(), timeout });
        (0..ranks).map(|rank| InProcess { rank, ranks, bytes: 0, meeting: Arc::clone(&meeting) }).collect()
    }
}

fn sum(brought: &mut [Option<Vec<f64>>]) -> Result<Arc<Vec<f64>>, ReduceError> {
    let mut parts = brought.iter_mut().map(|b| b.take().unwrap_or_default()).enumerate();
    let mut total = parts.next().map(|(_, p)| p).unwrap_or_default();
    let mut odd = None;
    for (rank, part) in parts {
        if part.len() != total.len() {
            odd = odd.or(Some(ReduceError::Length { rank, have: part.len(), want: total.len() }));
            continue;
        }
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
    odd.map_or(Ok(Arc::new(total)), Err)
}

impl Reduce for InProcess {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn all_reduce_sum(&mut self, values: &mut [f64]) -> Result<(), ReduceError> {
        self.bytes += 8 * values.len() as u64;
        let m = &self.meeting;
        // A rank that panicked leaves consistent data behind and is reported as gone.
        let lock = m.round.lock().unwrap_or_else(PoisonError::into_inner);
        // The sums of the round before must have been read by all.
        let (mut round, waited) = m
            .changed
            .wait_timeout_while(lock, m.timeout, |r| r.sums.is_some() && r.gone.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(rank) = round.gone {
            return Err(ReduceError::Gone { rank });
        }
        if waited.timed_out() {
            return Err(ReduceError::Timeout { rank: self.rank, seconds: m.timeout.as_secs() });
        }
        round.brought[self.rank] = Some(values.to_vec());
        if round.brought.iter().all(Option::is_some) {
            let sums = sum(&mut round.brought);
            round.sums = Some(sums);
            round.unread = self.ranks;
            m.changed.notify_all();
        }
        let (mut round, _) = m
            .changed
            .wait_timeout_while(round, m.timeout, |r| r.sums.is_none() && r.gone.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let Some(sums) = round.sums.clone() else {
            if let Some(rank) = round.gone {
                return Err(ReduceError::Gone { rank });
            }
            let rank = round.brought.iter().position(Option::is_none).unwrap_or(self.rank);
            return Err(ReduceError::Timeout { rank, seconds: m.timeout.as_secs() });
        };
        round.unread -= 1;
        if round.unread == 0 {
            round.sums = None;
            m.changed.notify_all();
        }
        drop(round);
        values.copy_from_slice(&sums?);
        Ok(())
    }

    fn payload_bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        let mut round = self.meeting.round.lock().unwrap_or_else(PoisonError::into_inner);
        round.gone.get_or_insert(self.rank);
        self.meeting.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn together<R: Send>(ranks: usize, f: impl Fn(InProcess) -> R + Sync) -> Vec<R> {
        let f = &f;
        std::thread::scope(|s| {
            let handles: Vec<_> = InProcess::group(ranks, Duration::from_secs(20))
                .into_iter()
                .map(|r| s.spawn(move || f(r)))
                .collect();
            handles.into_iter().map(|h| h.join().unwrap()).collect()
        })
    }

    #[test]
    fn every_rank_gets_the_sums_of_every_round_in_the_order_of_ranks() {
        let got = together(3, |mut r| {
            let mut all = Vec::new();
            for round in 0..50 {
                // 1e16 + 1 - 1e16 depends on the order of summation.
                let mut v = [[1e16, 1.0, -1e16][r.rank()], f64::from(round)];
                r.all_reduce_sum(&mut v).unwrap();
                all.push(v);
            }
            (all, r.payload_bytes())
        });
        for (all, bytes) in &got {
            assert_eq!(*bytes, 50 * 16);
            for (round, v) in all.iter().enumerate() {
                assert_eq!(v.map(f64::to_bits), [1e16 + 1.0 - 1e16, 3.0 * round as f64].map(f64::to_bits));
            }
        }
    }

    #[test]
    fn a_rank_that_leaves_or_never_comes_is_named_instead_of_waited_for() {
        let got = together(2, |mut r| if r.rank() == 0 { Some(r.all_reduce_sum(&mut [1.0])) } else { None });
        assert_eq!(got[0], Some(Err(ReduceError::Gone { rank: 1 })));

        let mut group = InProcess::group(2, Duration::from_millis(20));
        let e = group[0].all_reduce_sum(&mut [1.0]).unwrap_err();
        assert_eq!(e, ReduceError::Timeout { rank: 1, seconds: 0 });
    }

    #[test]
    fn ranks_with_different_numbers_of_values_are_told_so() {
        let got = together(2, |mut r| {
            let mut v = vec![1.0; 1 + r.rank()];
            r.all_reduce_sum(&mut v)
        });
        for e in got {
            assert_eq!(e, Err(ReduceError::Length { rank: 1, have: 2, want: 1 }));
        }
    }
}
