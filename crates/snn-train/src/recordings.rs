//! Passes through a model that were recorded once and are queued again as a whole.
//!
//! A small network is many short pieces of work, and queuing them one by one can take the host longer than the device
//! takes for them. Where a pass queues the same work every time, on the same buffers, the device records it and is told
//! to do it again at once. Devices that gain nothing by it record nothing.

use snn_core::{Activity, Backend, Result};

/// Recordings that are kept: passes of training and of evaluation, forward and backward, of whole batches and of the
/// last one.
const MOST: usize = 8;

/// Which way a pass goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Direction {
    Forward = 0,
    Backward = 1,
}

/// What a recording depends on: which pass it is, sizes, and where its input lies.
pub(crate) type Key = Vec<u64>;

/// The recorded passes of one model.
#[derive(Debug)]
pub(crate) struct Recordings<B: Backend> {
    // The first time only the key is kept: that run gives buffers their sizes.
    known: Vec<(Key, Option<B::Recording>)>,
    // What ran last in either direction: sizes that the host keeps are those of that pass.
    last: [Key; 2],
    moves: u64,
    off: bool,
}

impl<B: Backend> Default for Recordings<B> {
    fn default() -> Self {
        Self { known: Vec::new(), last: [vec![], vec![]], moves: 0, off: false }
    }
}

impl<B: Backend> Recordings<B> {
    /// Forgets everything, because something else than the input has changed.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.last = [vec![], vec![]];
    }

    /// Whether the device records at all, as far as is known.
    pub(crate) fn are_possible(&self) -> bool {
        !self.off
    }

    /// How many passes are recorded.
    pub(crate) fn count(&self) -> usize {
        self.known.iter().filter(|(_, recording)| recording.is_some()).count()
    }

    /// Does `work`, by its recording if there is one for this key and nothing else ran since.
    pub(crate) fn run(
        &mut self,
        device: &B,
        direction: Direction,
        key: Key,
        work: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let follows = self.last[direction as usize] == key;
        self.last[direction as usize].clone_from(&key);
        // A buffer that grew lies elsewhere now; recordings still have its old place.
        if device.moves() != self.moves {
            self.moves = device.moves();
            self.clear();
        }
        let Some((_, recording)) = self.known.iter_mut().find(|(known, _)| *known == key) else {
            if self.known.len() == MOST {
                self.known.remove(0);
            }
            self.known.push((key, None));
            return work();
        };
        if !follows {
            return work();
        }
        if recording.is_none() {
            match device.record(work) {
                Ok(Some(made)) => *recording = Some(made),
                // Nothing was done yet.
                Ok(None) | Err(_) => self.off = true,
            }
        }
        match recording {
            Some(recording) => device.replay(recording),
            None => work(),
        }
    }
}

/// Adds to a key what an activity is and where it lies; nothing for one whose size differs from batch to batch.
pub(crate) fn place<B: Backend>(device: &B, activity: &Activity<B>, key: &mut Key) -> bool {
    match activity {
        Activity::Spikes(spikes) => key.extend(device.place_of_spikes(spikes)),
        Activity::Sequence(x) | Activity::Values(x) | Activity::Times(x) => {
            key.push(device.place(&x.data));
            key.extend(x.shape.iter().map(|&n| n as u64));
        }
        Activity::Trains(_) => return false,
    }
    true
}
