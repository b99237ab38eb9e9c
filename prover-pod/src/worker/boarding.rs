//! Filled tables go to the device while it proves, in the order in which they were filled, each as soon as there is room for it.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

/// The tables that are not proven yet. `T` is a table, `A` the right to its copy on the device.
#[derive(Debug)]
pub(super) struct Boarding<T, A> {
    /// In order. Jobs that end, proven or cancelled, take their tables with them.
    waiting: Mutex<Vec<Weak<Passenger<T, A>>>>,
    wake: Sender<()>,
}

/// A table, and where it is.
#[derive(Debug)]
pub(super) struct Passenger<T, A> {
    table: T,
    at: Mutex<At<A>>,
}

#[derive(Debug)]
enum At<A> {
    Host,
    Device(A),
    /// Its proof has begun.
    Gone,
}

impl<T, A> Passenger<T, A> {
    /// The table.
    pub(super) fn table(&self) -> &T {
        &self.table
    }

    /// Its proof begins: what was uploaded of it, if anything, and nothing will be from now on. An upload under way is waited for: it
    /// would only be begun anew.
    pub(super) fn leave(&self) -> Option<A> {
        match std::mem::replace(&mut *lock(&self.at), At::Gone) {
            At::Device(copy) => Some(copy),
            At::Host | At::Gone => None,
        }
    }

    fn board(&self, upload: &mut impl FnMut(&T) -> Option<A>) {
        let mut at = lock(&self.at);
        if matches!(*at, At::Host)
            && let Some(copy) = upload(&self.table)
        {
            *at = At::Device(copy);
        }
    }
}

impl<T: Send + Sync + 'static, A: Send + 'static> Boarding<T, A> {
    /// Starts the thread that calls `upload`, which gives nothing where there is no room. It ends with the last of those who hold this.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn start(mut upload: impl FnMut(&T) -> Option<A> + Send + 'static) -> io::Result<Arc<Self>> {
        let (wake, woken) = channel();
        let boarding = Arc::new(Self { waiting: Mutex::default(), wake });
        let theirs = Arc::downgrade(&boarding);
        thread::Builder::new().name("boarding".into()).spawn(move || run(&theirs, &woken, &mut upload))?;
        Ok(boarding)
    }

    /// A table that is filled waits from now on.
    pub(super) fn add(&self, table: T) -> Arc<Passenger<T, A>> {
        let passenger = Arc::new(Passenger { table, at: Mutex::new(At::Host) });
        lock(&self.waiting).push(Arc::downgrade(&passenger));
        self.look();
        passenger
    }

    /// There may be room that there was not before.
    pub(super) fn look(&self) {
        // The thread ends after this is dropped, not before, unless `upload` panics: then tables go up with their proofs.
        let _ = self.wake.send(());
    }

    fn passengers(&self) -> Vec<Arc<Passenger<T, A>>> {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|passenger| passenger.strong_count() > 0);
        waiting.iter().filter_map(Weak::upgrade).collect()
    }
}

fn run<T, A>(boarding: &Weak<Boarding<T, A>>, woken: &Receiver<()>, upload: &mut impl FnMut(&T) -> Option<A>)
where
    T: Send + Sync + 'static,
    A: Send + 'static,
{
    while woken.recv().is_ok() {
        // One look answers all who asked before it.
        while woken.try_recv().is_ok() {}
        let Some(passengers) = boarding.upgrade().map(|boarding| boarding.passengers()) else { return };
        for passenger in passengers {
            passenger.board(upload);
        }
    }
}

/// Data behind the locks stays consistent when a thread panics: each change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// A device with room for so many, which tells what goes up.
    #[derive(Clone)]
    struct Device {
        room: Arc<AtomicUsize>,
        uploads: Sender<u32>,
    }

    /// A copy there. Dropping it makes room.
    #[derive(Debug)]
    struct Copy(Arc<AtomicUsize>);

    impl Drop for Copy {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Device {
        fn upload(&self, table: u32) -> Option<Copy> {
            self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(1)).ok()?;
            self.uploads.send(table).expect("the test listens");
            Some(Copy(Arc::clone(&self.room)))
        }
    }

    fn device(room: usize) -> (Device, Receiver<u32>, Arc<Boarding<u32, Copy>>) {
        let (uploads, uploaded) = channel();
        let device = Device { room: Arc::new(AtomicUsize::new(room)), uploads };
        let theirs = device.clone();
        let boarding = Boarding::start(move |&table| theirs.upload(table)).expect("a thread");
        (device, uploaded, boarding)
    }

    #[test]
    fn who_found_no_room_goes_up_when_there_is_some() {
        let (_, uploaded, boarding) = device(1);
        let first = boarding.add(1);
        assert_eq!(uploaded.recv_timeout(SOON), Ok(1));
        let [second, third] = [2, 3].map(|table| boarding.add(table));
        let copy = first.leave();
        assert!(copy.is_some() && uploaded.try_recv().is_err());
        drop(copy);
        boarding.look();
        assert_eq!(uploaded.recv_timeout(SOON), Ok(2), "in their order");
        assert!(third.leave().is_none(), "its proof uploads it");
        drop(second.leave());
        boarding.look();
        let fourth = boarding.add(4);
        assert_eq!(uploaded.recv_timeout(SOON), Ok(4), "nobody goes up twice, or after the proof has begun");
        assert_eq!(*fourth.table(), 4);
    }

    #[test]
    fn a_cancelled_job_makes_room() {
        let (device, uploaded, boarding) = device(1);
        drop(boarding.add(1));
        let second = boarding.add(2);
        // The first may have been up before it was dropped.
        let up = uploaded.recv_timeout(SOON);
        if up == Ok(1) {
            boarding.look();
            assert_eq!(uploaded.recv_timeout(SOON), Ok(2));
        }
        drop((second, boarding));
        // The thread's own hold of it is short.
        for _ in 0..200 {
            if device.room.load(Ordering::SeqCst) == 1 {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("a copy is left that nobody wants");
    }

    #[test]
    fn a_proof_waits_for_the_upload_of_its_own_table() {
        let (begun, begins) = channel();
        let (end, ends) = channel();
        let boarding = Boarding::<u32, ()>::start(move |_| {
            begun.send(()).expect("the test listens");
            ends.recv().ok()
        });
        let boarding = boarding.expect("a thread");
        let passenger = boarding.add(1);
        begins.recv_timeout(SOON).expect("the upload begins");
        let theirs = Arc::clone(&passenger);
        let proof = thread::spawn(move || theirs.leave());
        thread::sleep(Duration::from_millis(50));
        assert!(!proof.is_finished());
        end.send(()).expect("the upload waits");
        assert_eq!(proof.join().expect("no panic"), Some(()));
        boarding.look();
        drop(boarding);
        assert!(begins.recv_timeout(SOON).is_err(), "the thread has ended and nothing was uploaded again");
    }
}
