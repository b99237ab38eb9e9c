//! The main table of the next proof goes to the device while a proof is being made there.
//!
//! It waits at the end of the arena, in what the present proof's layout leaves free. When its own proof begins, a copy inside the
//! device (five gigabytes at 2^22 rows in some milliseconds) brings it to its place. A table that has no room, or whose room
//! another proof took, goes up when its proof begins, as if nothing had been tried.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result};

use super::arena::{Arena, Region, padded};
use super::device::{Device, driver};
use super::job::{self, words};
use super::staging::Staging;
use crate::domain::Domains;
use crate::error::GpuError;
use crate::main_table::MainTable;
use crate::plan::Plan;
use crate::stages::NUM_ORIGINAL_MAIN_COLUMNS;

/// Words of a main table's original columns.
fn table_words(domains: &Domains) -> usize {
    NUM_ORIGINAL_MAIN_COLUMNS * domains.trace_length()
}

/// Bytes that a main table takes while it waits.
pub(super) fn table_bytes(domains: &Domains) -> u64 {
    padded::<u64>(table_words(domains))
}

/// The end of the arena, where a table may wait.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What the layout of the present proof leaves free; nothing before the first.
    free: Option<Free>,
    held: Option<Held>,
    /// When the last table had been copied away.
    left: Option<CudaEvent>,
    last_ticket: u64,
}

#[derive(Debug, Clone, Copy)]
struct Free {
    spare: Region<u64>,
    arena_bytes: u64,
    /// What the next proof's plan is chosen by.
    usable: u64,
    forced_plan: Option<Plan>,
}

#[derive(Debug)]
struct Held {
    ticket: u64,
    place: Region<u64>,
}

impl WaitingRoom {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody may wait in this arena any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        (state.free, state.held) = (None, None);
    }

    /// A proof is about to be laid out that leaves so many bytes of the arena. Nobody may come until [`Self::open`]; who waits where
    /// the proof will work has to go.
    pub(super) fn make_way(&self, spare_bytes: u64) {
        let mut state = self.lock();
        state.free = None;
        state.held.take_if(|held| padded::<u64>(held.place.len()) > spare_bytes);
    }

    /// The arena has a layout for a proof.
    pub(super) fn open(&self, arena: &Arena, usable: u64, forced_plan: Option<Plan>) {
        let spare = arena.spare();
        self.lock().free = Some(Free { spare, arena_bytes: arena.size(), usable, forced_plan });
    }
}

/// Where a table of `table` bytes, whose proof takes `layout` bytes, may wait: it must fit beside the present proof, and beside its
/// own, which is laid out before the table has moved.
fn has_room(spare: u64, arena: u64, table: u64, layout: u64) -> bool {
    table <= spare && layout.checked_add(table).is_some_and(|both| both <= arena)
}

/// The right to a table that waits on the device. Dropping it frees the place.
#[derive(Debug)]
pub struct Ahead {
    room: Arc<WaitingRoom>,
    ticket: u64,
    table: u64,
}

impl Ahead {
    /// Copies `main` to `target` in the order of `stream`, if it is this table that waits and it is still there.
    pub(super) fn move_to(self, main: &MainTable, target: Region<u64>, stream: &CudaStream) -> Result<bool, GpuError> {
        assert_eq!(target.len(), table_words(main.domains()), "the table's own place");
        if self.table != main.serial() {
            return Ok(false);
        }
        let mut state = self.room.lock();
        let Some(held) = state.held.take_if(|held| held.ticket == self.ticket) else { return Ok(false) };
        let bytes = size_of::<u64>() * target.len();
        // SAFETY: both regions have this many bytes and do not overlap: the room lies behind every layout that it was kept for. The
        // upload has ended, and the next one waits for the event below.
        unsafe { result::memcpy_dtod_async(target.address(), held.place.address(), bytes, stream.cu_stream()) }
            .map_err(driver("copying inside the device"))?;
        state.left = Some(stream.record_event(None).map_err(driver("recording an event"))?);
        Ok(true)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.room.lock().held.take_if(|held| held.ticket == self.ticket);
    }
}

/// Brings tables to a device while it proves; for another thread than the prover's.
#[derive(Debug)]
pub struct Uploader {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    staging: Staging,
    room: Arc<WaitingRoom>,
}

impl Uploader {
    pub(super) fn new(device: &Device, room: Arc<WaitingRoom>) -> Result<Self, GpuError> {
        let stream = device.context().new_stream().map_err(driver("making a stream"))?;
        let staging = Staging::new(device.context(), &stream)?;
        Ok(Self { context: device.context().clone(), stream, staging, room })
    }

    /// Uploads a table if there is room for it beside the present proof. A proof that begins meanwhile waits until the upload is over.
    ///
    /// # Errors
    /// If the device fails.
    pub fn upload(&mut self, main: &MainTable) -> Result<Option<Ahead>, GpuError> {
        let domains = main.domains();
        let mut state = self.room.lock();
        let Some(free) = state.free.filter(|_| state.held.is_none()) else { return Ok(None) };
        let layout = match free.forced_plan {
            Some(plan) => Some(job::bytes(domains, plan)),
            None => fastest_plan(domains, free.usable).map(|(_, bytes)| bytes),
        };
        let fits = |layout| has_room(8 * free.spare.len() as u64, free.arena_bytes, table_bytes(domains), layout);
        if !layout.is_some_and(fits) {
            return Ok(None);
        }
        let words_needed = table_words(domains);
        let place = free.spare.slice(free.spare.len() - words_needed, words_needed);
        self.context.bind_to_thread().map_err(driver("binding the context"))?;
        if let Some(left) = &state.left {
            self.stream.wait(left).map_err(driver("making a stream wait"))?;
        }
        let sent = self.staging.upload(&self.stream, place, words(main.columns().as_slice()));
        // Also after an error: the place is another's as soon as the room is unlocked.
        let ended = self.stream.synchronize().map_err(driver("waiting for an upload"));
        sent.and(ended)?;
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        state.held = Some(Held { ticket, place });
        drop(state);
        Ok(Some(Ahead { room: Arc::clone(&self.room), ticket, table: main.serial() }))
    }
}

/// The fastest plan for these domains in so many bytes, and what it takes.
pub(super) fn fastest_plan(domains: &Domains, usable: u64) -> Option<(Plan, u64)> {
    Plan::fastest_first().map(|plan| (plan, job::bytes(domains, plan))).find(|&(_, bytes)| bytes <= usable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_waits_only_where_neither_proof_works(arena in 0..1_u64 << 40, present in 0..1_u64 << 40, table in 0..1_u64 << 40, own: u64) {
            let present = present.min(arena);
            if has_room(arena - present, arena, table, own) {
                let begins = arena - table;
                prop_assert!(present <= begins && own <= begins);
            }
        }
    }

    /// The largest proofs of the cards that the project is for: 80 GB, and 141 GB.
    #[test]
    fn there_is_room_beside_the_largest_proofs() {
        for (gib, log2) in [(79, 22), (139, 22), (139, 23)] {
            let domains = Domains::new(1 << log2).expect("a legal height");
            let (_, layout) = fastest_plan(&domains, gib << 30).expect("it fits");
            let table = table_bytes(&domains);
            let usable: u64 = gib << 30;
            assert!(has_room(usable - layout, usable, table, layout), "2^{log2}: {layout} and {table} bytes in {usable}");
        }
    }
}
