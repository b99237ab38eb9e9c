//! The main tables of the next proofs go to the device while a proof is being made there.
//!
//! They wait at the end of the arena, in what the present proof's layout leaves free. When its own proof begins, a copy inside the
//! device (five gigabytes at 2^22 rows in some milliseconds) brings a table to its place. A table that has no room, or whose room
//! another proof took, goes up when its proof begins, as if nothing had been tried.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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

/// Tables as high as that of the proof which an arena is made for that are given room beside it: while a device proves, the next
/// job's table goes up, and often that of the one after it.
const TABLES_AHEAD: u64 = 2;

/// Bytes of an arena for proofs of these domains, which take `layout` bytes of `usable` ones.
pub(super) fn arena_bytes(domains: &Domains, layout: u64, usable: u64) -> u64 {
    let ahead = (usable.saturating_sub(layout) / table_bytes(domains)).min(TABLES_AHEAD);
    layout + ahead * table_bytes(domains)
}

/// The end of the arena, where tables may wait.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    state: Mutex<State>,
    /// An upload has ended.
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What the layout of the present proof leaves free; nothing before the first.
    free: Option<Free>,
    /// The tables' places, the one nearest to the arena's end first.
    held: Vec<Held>,
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
    span: Span,
    /// Its upload is under way.
    arriving: bool,
}

/// Bytes at the end of the arena: so many, and the first of them so far from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    from_end: u64,
    bytes: u64,
}

impl WaitingRoom {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody may wait in this arena any more.
    pub(super) fn close(&self) {
        self.make_way(0);
    }

    /// A proof is about to be laid out that leaves so many bytes of the arena. Nobody may come until [`Self::open`]; who waits where
    /// the proof will work has to go. An upload to there is waited for.
    pub(super) fn make_way(&self, spare_bytes: u64) {
        let is_in_the_way = |held: &Held| held.span.from_end > spare_bytes;
        let mut state = self.lock();
        state.free = None;
        while state.held.iter().any(|held| held.arriving && is_in_the_way(held)) {
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.held.retain(|held| !is_in_the_way(held));
    }

    /// The arena has a layout for a proof.
    pub(super) fn open(&self, arena: &Arena, usable: u64, forced_plan: Option<Plan>) {
        let spare = arena.spare();
        self.lock().free = Some(Free { spare, arena_bytes: arena.size(), usable, forced_plan });
    }

    fn leave(&self, ticket: u64) {
        self.lock().held.retain(|held| held.ticket != ticket);
    }
}

impl State {
    /// A place for a table of these domains, if there is one; it is taken then.
    fn admit(&mut self, domains: &Domains) -> Option<(u64, Region<u64>)> {
        let free = self.free?;
        let layout = match free.forced_plan {
            Some(plan) => job::bytes(domains, plan),
            None => fastest_plan(domains, free.usable)?.1,
        };
        let taken: Vec<Span> = self.held.iter().map(|held| held.span).collect();
        let table = table_bytes(domains);
        let (index, span) = room(8 * free.spare.len() as u64, free.arena_bytes, &taken, table, layout)?;
        let first = free.spare.len() - usize::try_from(span.from_end / 8).ok()?;
        let place = free.spare.slice(first, table_words(domains));
        self.last_ticket += 1;
        self.held.insert(index, Held { ticket: self.last_ticket, place, span, arriving: true });
        Some((self.last_ticket, place))
    }
}

/// Where a table of `table` bytes, whose proof takes `layout` bytes, may wait beside those that wait already (`taken`, from the
/// arena's end on), and its index among them. It must fit beside the present proof, which leaves `spare` of the arena's bytes, and
/// beside its own, which is laid out before the table has moved.
fn room(spare: u64, arena: u64, taken: &[Span], table: u64, layout: u64) -> Option<(usize, Span)> {
    let deepest = spare.min(arena.checked_sub(layout)?);
    let begins = |index: usize| index.checked_sub(1).map_or(0, |before| taken[before].from_end);
    let fits = |index: &usize| {
        let from_end = begins(*index).saturating_add(table);
        from_end <= deepest && taken.get(*index).is_none_or(|next| from_end <= next.from_end - next.bytes)
    };
    let index = (0..=taken.len()).find(fits)?;
    Some((index, Span { from_end: begins(index) + table, bytes: table }))
}

/// Lives as long as the upload of a table. However that ends: a proof may wait for it.
struct Arriving<'a> {
    room: &'a WaitingRoom,
    ticket: u64,
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        for held in self.room.lock().held.iter_mut().filter(|held| held.ticket == self.ticket) {
            held.arriving = false;
        }
        self.room.arrived.notify_all();
    }
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
        let Some(index) = state.held.iter().position(|held| held.ticket == self.ticket) else { return Ok(false) };
        let held = state.held.remove(index);
        let bytes = size_of::<u64>() * target.len();
        // SAFETY: both regions have this many bytes and do not overlap: the room lies behind every layout that it was kept for. The
        // upload has ended, and those that follow wait for the event below.
        unsafe { result::memcpy_dtod_async(target.address(), held.place.address(), bytes, stream.cu_stream()) }
            .map_err(driver("copying inside the device"))?;
        state.left = Some(stream.record_event(None).map_err(driver("recording an event"))?);
        Ok(true)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.room.leave(self.ticket);
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

    /// Uploads a table if there is room for it beside the present proof. A proof that begins meanwhile and needs that room waits until
    /// the upload is over.
    ///
    /// # Errors
    /// If the device fails.
    pub fn upload(&mut self, main: &MainTable) -> Result<Option<Ahead>, GpuError> {
        self.context.bind_to_thread().map_err(driver("binding the context"))?;
        let mut state = self.room.lock();
        let Some((ticket, place)) = state.admit(main.domains()) else { return Ok(None) };
        let waits = state.left.as_ref().map_or(Ok(()), |left| self.stream.wait(left));
        // A proof may begin elsewhere in the arena meanwhile.
        drop(state);
        let room = Arc::clone(&self.room);
        let ahead = Ahead { room: Arc::clone(&room), ticket, table: main.serial() };
        let arriving = Arriving { room: &room, ticket };
        waits.map_err(driver("making a stream wait"))?;
        self.send(main, place)?;
        drop(arriving);
        Ok(Some(ahead))
    }

    fn send(&mut self, main: &MainTable, place: Region<u64>) -> Result<(), GpuError> {
        let sent = self.staging.upload(&self.stream, place, words(main.columns().as_slice()));
        // Also after an error: the place is another's soon.
        let ended = self.stream.synchronize().map_err(driver("waiting for an upload"));
        sent.and(ended)
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
        /// Whoever comes and goes: tables lie inside of what every proof that may begin leaves free, and nobody on anybody else.
        #[test]
        fn tables_wait_only_where_nobody_works(
            arena in 0..1_u64 << 40,
            share in 0.0..=1.0,
            visits in prop::collection::vec((0.0..0.6, 0.0..=1.0, any::<prop::sample::Index>()), 1..20),
        ) {
            let of_arena = |share: f64| (arena as f64 * share) as u64;
            let spare = of_arena(share);
            let mut taken: Vec<Span> = vec![];
            for (table, layout, leaves) in visits {
                let (table, layout) = (of_arena(table), of_arena(layout));
                match room(spare, arena, &taken, table, layout) {
                    Some((index, span)) => {
                        prop_assert_eq!(span.bytes, table);
                        prop_assert!(span.from_end <= spare && layout <= arena - span.from_end);
                        taken.insert(index, span);
                    }
                    None => prop_assert!(!taken.is_empty() || table > spare || table + layout > arena, "an empty room has room"),
                }
                let mut end = 0;
                for span in &taken {
                    prop_assert!(span.bytes <= span.from_end && end <= span.from_end - span.bytes, "{taken:?}");
                    end = span.from_end;
                }
                if leaves.index(2) == 0 && !taken.is_empty() {
                    taken.remove(leaves.index(taken.len()));
                }
            }
        }
    }

    #[test]
    fn a_gap_is_filled_from_the_end_on() {
        let span = |from_end, bytes| Span { from_end, bytes };
        let taken = [span(5, 5), span(12, 4), span(20, 8)];
        assert_eq!(room(100, 100, &taken, 3, 0), Some((1, span(8, 3))));
        assert_eq!(room(100, 100, &taken, 4, 0), Some((3, span(24, 4))));
        assert_eq!(room(22, 100, &taken, 4, 0), None, "the present proof works there");
        assert_eq!(room(100, 100, &taken, 4, 77), None, "its own proof would");
        assert_eq!(room(100, 100, &[], 4, 96), Some((0, span(4, 4))));
    }

    /// The largest proofs of the cards that the project is for, 80 GB and 141 GB, with a table of the same size, and where there is
    /// memory for two, with two.
    #[test]
    fn there_is_room_beside_the_largest_proofs() {
        for (gib, log2, tables) in [(79, 22, 1), (139, 22, 2), (139, 23, 1)] {
            let domains = Domains::new(1 << log2).expect("a legal height");
            let usable: u64 = gib << 30;
            let (_, layout) = fastest_plan(&domains, usable).expect("it fits");
            let arena = arena_bytes(&domains, layout, usable);
            let mut taken = vec![];
            while let Some((index, span)) = room(arena - layout, arena, &taken, table_bytes(&domains), layout) {
                taken.insert(index, span);
            }
            assert!(taken.len() >= tables, "2^{log2}: {layout} bytes and {taken:?} in {usable}");
        }
    }
}
