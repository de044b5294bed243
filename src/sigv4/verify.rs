//! Verifying what was received.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use ring::hmac;

use super::authorization::{Authorization, shown};
use super::time::parse;
use super::{Request, Scope, Secret, SigV4Error, canonical, signing_key, string_to_sign, timestamp};
use crate::digest::decode_hex;

/// The most bytes of values of headers `x-amz-*`, of the path and of the query, of each.
const MAX_TEXT: usize = 32 << 10;

/// Looks up the secrets of access keys.
pub trait Credentials {
    /// The secret of an access key that may be used now; of a session's only where the token is the session's. `None`
    /// where there is none, or it was made inactive. Tokens are best compared in constant time.
    fn secret(&self, access_key_id: &str, session_token: Option<&str>) -> Option<Secret>;
}

/// What a server expects of signatures.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    scopes: &'a [(&'a str, &'a str)],
    skew: Duration,
}

impl<'a> Expected<'a> {
    /// These pairs of service and region; times at most 15 minutes from the server's.
    pub fn new(scopes: &'a [(&'a str, &'a str)]) -> Self {
        Self { scopes, skew: Duration::from_secs(15 * 60) }
    }

    /// How far from the server's time a signature may be.
    pub fn skew(self, skew: Duration) -> Self {
        Self { skew, ..self }
    }
}

/// A request whose signature is right.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The key that signed it.
    pub access_key_id: String,
    /// The service that it was signed for.
    pub service: String,
    /// The region that it was signed for.
    pub region: String,
    /// The token of the session that signed it, if one did.
    pub session_token: Option<String>,
}

/// Verifies the signature of a request.
///
/// # Errors
/// The first thing that is wrong, in this order: the form of the header; what has to be signed; scope; time; key and
/// signature; session. None says more about a key to those who do not have its secret than whether it exists.
pub fn verify(
    request: &Request<'_>,
    credentials: &dyn Credentials,
    now: SystemTime,
    expected: &Expected<'_>,
) -> Result<Verified, SigV4Error> {
    let header = single(request, "authorization")?.ok_or(SigV4Error::Missing)?;
    let authorization = Authorization::parse(header)?;
    is_bounded(request)?;
    all_signed(request, &authorization.names)?;
    let time = single(request, "x-amz-date")?.and_then(|time| std::str::from_utf8(time).ok());
    let (time, signed_at) = time.and_then(|time| Some((time, parse(time)?))).ok_or_else(|| {
        SigV4Error::incomplete(
            "Authorization header requires existence of a 'X-Amz-Date' header, YYYYMMDD'T'HHMMSS'Z'.",
        )
    })?;
    is_expected(&authorization, time, expected)?;
    is_current(signed_at, now, expected.skew)?;

    let token = single(request, "x-amz-security-token")?.map(std::str::from_utf8);
    let token = token.transpose().map_err(|_| SigV4Error::UnknownKey)?;
    let found = credentials.secret(authorization.access_key_id, token);
    // Where there is no key, another secret is tried: it takes as long.
    let is_known = found.is_some();
    let secret = found.unwrap_or_else(|| Secret::new("0123456789012345678901234567890123456789"));
    let scope = Scope { region: authorization.region, service: authorization.service, time };
    let text = string_to_sign(request, &authorization.names, &scope);
    let mut signature = [0; 32];
    let is_hex = decode_hex(authorization.signature, &mut signature).is_some();
    let is_same = hmac::verify(&signing_key(&scope, &secret), text.as_bytes(), &signature).is_ok();
    match (is_known, is_hex && is_same && has_its_body(request)?) {
        (false, _) => Err(SigV4Error::UnknownKey),
        (true, false) => Err(SigV4Error::Mismatch),
        (true, true) if secret.has_expired => Err(SigV4Error::ExpiredSession),
        (true, true) => Ok(Verified {
            access_key_id: authorization.access_key_id.to_owned(),
            service: authorization.service.to_owned(),
            region: authorization.region.to_owned(),
            session_token: token.map(str::to_owned),
        }),
    }
}

/// The value of a header that may be there once: of two, this could take one and the server the other.
fn single<'a>(request: &Request<'a>, name: &str) -> Result<Option<&'a [u8]>, SigV4Error> {
    let mut values = request.values(name);
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err(SigV4Error::incomplete(format!("The header '{}' is there more than once.", shown(name)))),
    }
}

/// Whether no more is worked on than a client of a service can need.
fn is_bounded(request: &Request<'_>) -> Result<(), SigV4Error> {
    let signed = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if [request.path.len(), request.query.len(), signed].iter().any(|len| *len > MAX_TEXT) {
        let reason = format!("Path, query and headers of a signed request have at most {MAX_TEXT} bytes each.");
        return Err(SigV4Error::incomplete(reason));
    }
    Ok(())
}

/// Whether all is signed, and there once, that a service acts on: `host`, and each `x-amz-…` that was sent; and whether
/// all that is called signed was sent.
fn all_signed(request: &Request<'_>, names: &[&str]) -> Result<(), SigV4Error> {
    let sent = request.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
    let needed = sent.filter(|name| name.starts_with("x-amz-")).chain(["host".to_owned(), "x-amz-date".to_owned()]);
    for name in needed {
        if single(request, &name)?.is_some() && !names.contains(&name.as_str()) {
            return Err(SigV4Error::NotSigned { name: shown(&name) });
        }
    }
    match names.iter().find(|name| request.values(name).next().is_none()) {
        Some(name) => Err(SigV4Error::incomplete(format!("The signed header '{}' is missing.", shown(name)))),
        None if !names.contains(&"host") => Err(SigV4Error::NotSigned { name: "host".to_owned() }),
        None => Ok(()),
    }
}

fn is_expected(authorization: &Authorization<'_>, time: &str, expected: &Expected<'_>) -> Result<(), SigV4Error> {
    let Authorization { date, region, service, .. } = *authorization;
    let day = time.get(..8).unwrap_or_default();
    let reason = if date != day {
        let date = shown(date);
        format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{date}' != \
            '{day}', from '{time}'."
        )
    } else if !expected.scopes.iter().any(|scope| scope.0 == service) {
        let services = listed(expected.scopes.iter().map(|scope| scope.0));
        format!("Credential should be scoped to correct service: {services}.")
    } else if !expected.scopes.contains(&(service, region)) {
        let regions = listed(expected.scopes.iter().filter(|scope| scope.0 == service).map(|scope| scope.1));
        format!("Credential should be scoped to a valid region. This one is {regions}, not '{}'.", shown(region))
    } else {
        return Ok(());
    };
    Err(SigV4Error::Scope { reason })
}

/// Names in quotes, each once.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: BTreeSet<_> = names.collect();
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

fn is_current(signed_at: SystemTime, now: SystemTime, skew: Duration) -> Result<(), SigV4Error> {
    // Times are sent in whole seconds, so the server's are compared as such.
    let whole = |time: SystemTime| parse(&timestamp(time)).unwrap_or(time);
    let (earliest, latest) = (whole(now).checked_sub(skew), whole(now).checked_add(skew));
    let (signed, shown_now) = (timestamp(signed_at), timestamp(now));
    if let Some(earliest) = earliest.filter(|earliest| signed_at < *earliest) {
        return Err(SigV4Error::Expired { signed, earliest: timestamp(earliest), now: shown_now, skew });
    }
    match latest.filter(|latest| signed_at > *latest) {
        Some(latest) => Err(SigV4Error::NotYetCurrent { signed, latest: timestamp(latest), now: shown_now, skew }),
        None => Ok(()),
    }
}

/// Whether the body is the one that the header `x-amz-content-sha256` announces, where it is sent.
fn has_its_body(request: &Request<'_>) -> Result<bool, SigV4Error> {
    let announced = single(request, "x-amz-content-sha256")?;
    Ok(announced.is_none_or(|announced| announced == canonical::body_hash(request).as_bytes()))
}
