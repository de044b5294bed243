//! Telling the processor which memory is wanted soon.
//!
//! A look-up waits for memory several times, and many look-ups, or one in many places, can wait at once.

/// Has the processor fetch the line of its cache in which values begin, where it can be told to. Nothing else happens,
/// whatever lies there.
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "an instruction of the processor")]
        // SAFETY: the instruction is a hint. It reads nothing that the program sees, and fails for no address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
