//! Content that does not compress.

pub(crate) fn random(state: &mut u64, len: usize) -> Vec<u8> {
    std::iter::repeat_with(|| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state ^ *state >> 29).to_le_bytes()
    })
    .flatten()
    .take(len)
    .collect()
}
