//! The header `authorization`:
//! `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, SignedHeaders=a;b, Signature=HEX`.

use super::{ALGORITHM, SigV4Error, TERMINATOR};

/// The longest header, in bytes.
const MAX: usize = 4 << 10;

/// The most names of signed headers.
const MAX_NAMES: usize = 100;

/// The longest text of a client that errors repeat, in characters.
const MAX_SHOWN: usize = 64;

/// What the header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authorization<'a> {
    pub(super) access_key_id: &'a str,
    pub(super) date: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// In lower case, in order, each once.
    pub(super) names: Vec<&'a str>,
    pub(super) signature: &'a str,
}

impl<'a> Authorization<'a> {
    pub(super) fn parse(header: &'a [u8]) -> Result<Self, SigV4Error> {
        if header.len() > MAX {
            return Err(SigV4Error::incomplete(format!("Authorization header is longer than {MAX} bytes.")));
        }
        let header = std::str::from_utf8(header).ok().filter(|header| header.is_ascii());
        let header = header.ok_or_else(|| SigV4Error::incomplete("Authorization header is not ASCII."))?;
        let (algorithm, rest) = header.trim().split_once(' ').unwrap_or((header, ""));
        if algorithm != ALGORITHM {
            return Err(SigV4Error::incomplete(format!("Unsupported AWS 'algorithm': '{}'.", shown(algorithm))));
        }
        let parameters = Parameters::parse(rest)?;
        let (credential, names, signature) = parameters.all()?;
        let parts: Vec<_> = credential.split('/').take(6).collect();
        let &[access_key_id, date, region, service, TERMINATOR] = &*parts else {
            return Err(SigV4Error::incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/{TERMINATOR}, \
                 got '{}'.",
                shown(credential)
            )));
        };
        Ok(Self { access_key_id, date, region, service, names: signed(names)?, signature })
    }
}

/// The names of signed headers. Names that are out of order, or there twice, would let one list be read in two ways.
fn signed(names: &str) -> Result<Vec<&str>, SigV4Error> {
    let list: Vec<_> = names.split(';').take(MAX_NAMES + 1).collect();
    let is_name = |name: &&str| {
        let is_token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        !name.is_empty() && name.bytes().all(is_token)
    };
    let is_ordered = list.iter().zip(list.iter().skip(1)).all(|(name, next)| name < next);
    if list.len() > MAX_NAMES || !list.iter().all(is_name) || !is_ordered {
        let reason = format!("'SignedHeaders' must be at most {MAX_NAMES} lower-case names in order, each once.");
        return Err(SigV4Error::incomplete(reason));
    }
    Ok(list)
}

#[derive(Default)]
struct Parameters<'a> {
    credential: Option<&'a str>,
    signed_headers: Option<&'a str>,
    signature: Option<&'a str>,
}

impl<'a> Parameters<'a> {
    fn parse(text: &'a str) -> Result<Self, SigV4Error> {
        let mut found = Self::default();
        for parameter in text.split(',').map(str::trim).filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let place = match name {
                "Credential" => &mut found.credential,
                "SignedHeaders" => &mut found.signed_headers,
                "Signature" => &mut found.signature,
                _ => {
                    let reason = format!("'{}' not a valid key in Authorization header.", shown(parameter));
                    return Err(SigV4Error::incomplete(reason));
                }
            };
            if place.replace(value).is_some() {
                return Err(SigV4Error::incomplete(format!("Authorization header has '{name}' more than once.")));
            }
        }
        Ok(found)
    }

    fn all(&self) -> Result<(&'a str, &'a str, &'a str), SigV4Error> {
        let parameters =
            [("Credential", self.credential), ("SignedHeaders", self.signed_headers), ("Signature", self.signature)];
        let missing: Vec<_> = parameters
            .iter()
            .filter(|(_, value)| value.is_none_or(str::is_empty))
            .map(|(name, _)| format!("Authorization header requires '{name}' parameter."))
            .collect();
        match parameters.map(|(_, value)| value) {
            [Some(credential), Some(names), Some(signature)] if missing.is_empty() => {
                Ok((credential, names, signature))
            }
            _ => Err(SigV4Error::incomplete(missing.join(" "))),
        }
    }
}

/// The beginning of what a client has sent.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}
