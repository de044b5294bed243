//! Random texts: ids and secrets of keys.

use std::io;

use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

/// What ids of access keys are of: 32 characters.
pub const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What secrets are of: 64 characters.
pub const SECRETS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Random bytes of the operating system.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let drawn = SystemRandom::new().fill(&mut bytes);
    drawn.map_err(|_| io::Error::other("the operating system gives no random numbers"))?;
    Ok(bytes)
}

/// A text of so many characters of an alphabet, whose length is a power of two up to 256.
pub fn text(len: usize, alphabet: &[u8]) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(len));
    while text.len() < len {
        let [byte] = bytes::<1>()?;
        text.extend(alphabet.get(usize::from(byte) % alphabet.len()).map(|byte| char::from(*byte)));
    }
    Ok(text)
}
