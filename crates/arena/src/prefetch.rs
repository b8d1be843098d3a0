//! Asking for memory before it is needed. On processors that cannot be asked from here, nothing happens.

/// Has the cache line in which a value begins in the processor's caches soon, and does not wait for it.
pub fn prefetch<T>(value: &T) {
    line((&raw const *value).cast());
}

/// As [`prefetch`], at any address: nothing happens where no memory is.
pub(crate) fn line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction changes nothing that a program can see, and faults at no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
