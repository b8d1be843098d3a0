//! A word that the kernel changes when the process dies, however it dies: a robust futex, held by a thread that does nothing else.
//!
//! The kernel goes through the robust futexes of a thread when it ends, before it closes the files. So the word has changed before
//! another process can take over the socket of this one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::watch::{LIFE, Watch};

/// As long as this is there, the word holds a number that is not 0 and has bit 30 not set. Afterwards it is 0.
pub struct Life {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The head of a thread's list, and its one entry, as `get_robust_list(2)` has them: an entry points to the next one, the last one to
/// the head; the word is `offset` bytes behind its entry.
#[repr(C)]
struct Robust {
    first: *const Entry,
    offset: libc::c_long,
    pending: *const Entry,
    entry: Entry,
}

#[repr(C)]
struct Entry {
    next: *const Robust,
}

impl Life {
    /// Begins.
    pub(crate) fn begin(watch: Arc<Watch>) -> io::Result<Self> {
        let (end, ends) = channel();
        let (begun, begins) = channel();
        let held = move || hold(&watch, &begun, &ends);
        let thread = thread::Builder::new().name("life".into()).stack_size(64 << 10).spawn(held)?;
        begins.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().map(JoinHandle::join);
    }
}

/// What the thread does: it says that it holds the word, and waits.
fn hold(watch: &Watch, begun: &Sender<io::Result<()>>, ends: &Receiver<()>) {
    let word = &watch.mapping().half_words()[LIFE];
    let mut robust = Robust {
        first: std::ptr::null(),
        offset: 0,
        pending: std::ptr::null(),
        entry: Entry { next: std::ptr::null() },
    };
    robust.offset =
        word.as_ptr().addr().wrapping_sub((&raw const robust.entry).addr()).cast_signed() as libc::c_long;
    robust.first = &raw const robust.entry;
    robust.entry.next = &raw const robust;
    // SAFETY: the list lies in this frame, and is taken back before the frame ends. It takes the place of libc's, which this thread
    // has no entry in: it takes no robust lock.
    let listed = unsafe { set_robust_list(&raw const robust) };
    if listed.is_ok() {
        hold_word(word);
    }
    // An error means that nobody waits for it any more.
    let _ = begun.send(listed);
    let _ = ends.recv();
    word.store(0, Ordering::SeqCst);
    // SAFETY: no list at all is one that can always be had.
    let _ = unsafe { set_robust_list(std::ptr::null()) };
}

fn hold_word(word: &AtomicU32) {
    // SAFETY: a call without arguments.
    let thread = unsafe { libc::gettid() };
    word.store(thread.cast_unsigned(), Ordering::SeqCst);
}

/// # Safety
/// The list has to stay where it is until the thread ends or has another one.
unsafe fn set_robust_list(list: *const Robust) -> io::Result<()> {
    // SAFETY: the kernel keeps the address and looks at it when the thread ends; the caller answers for what is there.
    let done = unsafe { libc::syscall(libc::SYS_set_robust_list, list, 3 * size_of::<usize>()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_word_is_held_while_it_lives_and_zero_afterwards() {
        let watch = Arc::new(Watch::new().unwrap());
        let word = &watch.mapping().half_words()[LIFE];
        assert_eq!(word.load(Ordering::SeqCst), 0);
        let life = Life::begin(Arc::clone(&watch)).unwrap();
        let held = word.load(Ordering::SeqCst);
        assert!(held != 0 && held & 1 << 30 == 0);
        drop(life);
        assert_eq!(word.load(Ordering::SeqCst), 0);
    }

    /// The process that is killed is a child of the test's, which shares the memory.
    #[test]
    fn a_process_that_is_killed_says_so() {
        let watch = Arc::new(Watch::new().unwrap());
        // SAFETY: the child calls what only needs its own thread, and never returns.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let life = Life::begin(Arc::clone(&watch));
            thread::sleep(Duration::from_secs(60));
            drop(life);
            // SAFETY: the child ends here.
            unsafe { libc::_exit(0) };
        }
        let word = &watch.mapping().half_words()[LIFE];
        let held = || word.load(Ordering::SeqCst);
        (0..1000).take_while(|_| held() == 0).for_each(|_| thread::sleep(Duration::from_millis(5)));
        assert_eq!(held() & 0x3fff_ffff != 0, true, "the child holds it");
        // SAFETY: the child is this test's.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        assert_eq!(held() & 1 << 30, 1 << 30, "the owner died");
    }
}
