//! A word that the kernel changes when the process dies, however it dies: a robust futex, held by a thread that does nothing else.
//!
//! The kernel goes through the robust futexes of a thread when it ends, before it closes the files. So the word has changed before
//! another process can take over the socket of this one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::PAGE_SIZE;
use crate::mapping::{Mapping, Others};
use crate::watch::{LIFE, Watch};

/// As long as this is there, the word holds a number that is not 0 and has bit 30 not set. Afterwards it is 0.
pub struct Life {
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A thread's list, in words, as `set_robust_list(2)` has it: the first entry, how far behind its entry a futex lies, what is being
/// locked; then the one entry: the next one, which is the head again.
const FIRST: usize = 0;
const OFFSET: usize = 1;
const ENTRY: usize = 3;
const HEAD_LEN: usize = 3 * size_of::<u64>();

impl Life {
    /// Begins.
    pub(crate) fn begin(watch: Arc<Watch>) -> io::Result<Self> {
        let (end, ends) = sync_channel(0);
        let (begun, begins) = sync_channel(1);
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
fn hold(watch: &Watch, begun: &SyncSender<io::Result<()>>, ends: &Receiver<()>) {
    let word = &watch.mapping().half_words()[LIFE];
    let listed = Mapping::new("elcache-life", PAGE_SIZE, Others::Read).and_then(|list| enlist(list, word));
    if listed.is_ok() {
        hold_word(word);
    }
    let done = listed.as_ref().map(|_| ()).map_err(|error| error.kind().into());
    // An error means that nobody waits for it any more.
    let _ = begun.send(done);
    let _ = ends.recv();
    word.store(0, Ordering::SeqCst);
    // SAFETY: no list at all is one that can always be had. The old one is dropped after this.
    let _ = unsafe { set_robust_list(std::ptr::null()) };
}

/// Has the kernel know that this thread holds the word. The list has to live as long as the thread. It is not on the stack: where memory runs out,
/// the kernel takes what is private from a process that it kills, before it looks at the list.
fn enlist(list: Mapping, word: &AtomicU32) -> io::Result<Mapping> {
    let words = list.words();
    let address = |index: usize| words[index].as_ptr().addr() as u64;
    words[FIRST].store(address(ENTRY), Ordering::Relaxed);
    words[OFFSET].store((word.as_ptr().addr() as u64).wrapping_sub(address(ENTRY)), Ordering::Relaxed);
    words[ENTRY].store(address(FIRST), Ordering::Relaxed);
    // SAFETY: the caller keeps the list. It takes the place of libc's, in which this thread has no entry: it takes no robust lock.
    unsafe { set_robust_list(words[FIRST].as_ptr())? };
    Ok(list)
}

fn hold_word(word: &AtomicU32) {
    // SAFETY: a call without arguments.
    let thread = unsafe { libc::gettid() };
    word.store(thread.cast_unsigned(), Ordering::SeqCst);
}

/// # Safety
/// The list has to stay where it is until the thread ends or has another one.
unsafe fn set_robust_list(list: *const u64) -> io::Result<()> {
    // SAFETY: the kernel keeps the address and looks at it when the thread ends; the caller answers for what is there.
    let done = unsafe { libc::syscall(libc::SYS_set_robust_list, list, HEAD_LEN) };
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
        assert_ne!(held() & 0x3fff_ffff, 0, "the child holds it");
        // SAFETY: the child is this test's.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        assert_eq!(held() & 1 << 30, 1 << 30, "the owner died");
    }
}
