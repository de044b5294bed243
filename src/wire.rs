//! Reading and writing fields of on-disk structures: little-endian, bounded, without a panic.
//!
//! A [`Fields`] hands out fields from the front of a byte slice and answers `None` where the slice is too short, so
//! that a parser is a chain of `?` and no length from disk is believed before it is compared with what is there.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("strongroom maps files and counts bytes in 64 bits: it is for 64-bit machines");

/// A length or a position as memory has it. On the machines that the crate is for that is the same number.
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits, or nothing is compiled")]
pub(crate) const fn index(n: u64) -> usize {
    n as usize
}

/// The lower and the upper half of a number.
#[expect(clippy::cast_possible_truncation, reason = "the other half is the other result")]
pub(crate) const fn halves(n: u128) -> (u64, u64) {
    (n as u64, (n >> 64) as u64)
}

/// The first bytes of an array. Compiles only where it has so many.
pub(crate) fn first<const N: usize, const ALL: usize>(bytes: &[u8; ALL]) -> [u8; N] {
    const { assert!(N <= ALL) };
    let mut first = [0; N];
    first.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    first
}

/// The last bytes of an array. Compiles only where it has so many.
pub(crate) fn last<const N: usize, const ALL: usize>(bytes: &[u8; ALL]) -> [u8; N] {
    const { assert!(N <= ALL) };
    let mut last = [0; N];
    last.iter_mut().rev().zip(bytes.iter().rev()).for_each(|(to, from)| *to = *from);
    last
}

/// CRC-32C (Castagnoli) of `bytes`, in hardware where there is any.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// CRC-32C of content that comes in pieces. The state is the checksum of what was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunningCrc {
    crc: u32,
}

impl RunningCrc {
    /// Goes on from content that has the checksum `crc`.
    pub(crate) fn resume(crc: u32) -> Self {
        Self { crc }
    }

    /// Takes in the next piece.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }

    /// The checksum of all that was seen.
    pub(crate) fn get(self) -> u32 {
        self.crc
    }
}

/// Takes fields from the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `n` bytes.
    pub(crate) fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    /// The next `N` bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// One byte.
    pub(crate) fn u8(&mut self) -> Option<u8> {
        let [byte] = self.array()?;
        Some(byte)
    }

    /// Two bytes.
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Six bytes.
    pub(crate) fn u48(&mut self) -> Option<u64> {
        let [a, b, c, d, e, f] = self.array()?;
        Some(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// Eight bytes.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes behind their 16-bit length.
    pub(crate) fn bytes16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.bytes(usize::from(length))
    }

    /// UTF-8 behind its 16-bit length.
    pub(crate) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes16()?.to_vec()).ok()
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Some` if nothing is left: the end of a structure that must have no more fields.
    pub(crate) fn end(&self) -> Option<()> {
        self.is_empty().then_some(())
    }
}

/// Appends fields to a byte vector.
pub(crate) trait PutFields {
    /// Raw bytes.
    fn put(&mut self, bytes: &[u8]);

    /// A length or count as 16 bits. Whoever takes in what it counts has bounded it: what is longer can't be read back.
    fn put_len16(&mut self, len: usize) {
        debug_assert!(u16::try_from(len).is_ok(), "a bounded length");
        self.put_u16(u16::try_from(len).unwrap_or(u16::MAX));
    }

    /// A length or count as 32 bits, likewise.
    fn put_len32(&mut self, len: usize) {
        debug_assert!(u32::try_from(len).is_ok(), "a bounded length");
        self.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// One byte.
    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Two bytes.
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    /// Four bytes.
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    /// Six bytes: the lower 48 bits.
    fn put_u48(&mut self, value: u64) {
        debug_assert!(value < 1 << 48, "a 48-bit field");
        let [a, b, c, d, e, f, ..] = value.to_le_bytes();
        self.put(&[a, b, c, d, e, f]);
    }

    /// Eight bytes.
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// A text behind its 16-bit length.
    fn put_text(&mut self, text: &str) {
        self.put_len16(text.len());
        self.put(text.as_bytes());
    }
}

impl PutFields for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A length in memory as the 64 bits that files hold.
pub(crate) fn len64(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_has_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn crc32c_is_the_remainder_by_its_polynomial_whatever_the_length() {
        let content: Vec<u8> =
            (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
        let bit = |crc: u32| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 };
        let mut state = u32::MAX;
        for (len, byte) in (1..).zip(&content) {
            state = (0..8).fold(state ^ u32::from(*byte), |crc, _| bit(crc));
            if len < 300 || len % 9_973 == 0 {
                assert_eq!(crc32c(&content[..len]), !state, "{len}");
            }
        }
    }

    #[test]
    fn a_running_checksum_equals_that_of_the_whole() {
        let content: Vec<u8> = (0..100_000u32).map(|i| i.to_le_bytes()[1]).collect();
        let mut running = RunningCrc::default();
        for piece in content.chunks(777) {
            running = RunningCrc::resume(running.get());
            running.update(piece);
        }
        assert_eq!(running.get(), crc32c(&content));
    }

    #[test]
    fn fields_end_where_the_bytes_do() {
        let mut bytes = Vec::new();
        bytes.put_u48(0x0102_0304_0506);
        bytes.put_u16(9);
        let mut fields = Fields(&bytes);
        assert_eq!(
            (fields.u48(), fields.u16(), fields.u8(), fields.end()),
            (Some(0x0102_0304_0506), Some(9), None, Some(()))
        );
    }
}
