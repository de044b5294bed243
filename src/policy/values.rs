//! The values that conditions compare: numbers, dates, addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::calendar::{date_of, days_to};

/// A text that is no such value.
#[derive(Debug)]
pub(super) struct Malformed;

/// An exact decimal number: up to 20 digits before the point and 18 behind it, as a multiple of 10^-18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(i128);

impl FromStr for Number {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(Malformed),
            Some(parts) => parts,
            None => (digits, ""),
        };
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 20 || fraction.len() > 18 || !is_digits(whole) || !is_digits(fraction) {
            return Err(Malformed);
        }
        let scaled: i128 = format!("{whole}{fraction:0<18}").parse().map_err(|_| Malformed)?;
        Ok(Self(sign * scaled))
    }
}

/// A point in time, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Date(i128);

const SECOND: i128 = 1_000_000_000;

impl Date {
    pub(super) fn epoch_seconds(self) -> i128 {
        self.0.div_euclid(SECOND)
    }
}

impl From<SystemTime> for Date {
    fn from(time: SystemTime) -> Self {
        let nanos = |duration: std::time::Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
        Self(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => nanos(after),
            Err(before) => -nanos(before.duration()),
        })
    }
}

/// To the second: `2026-11-30T16:53:20Z`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.epoch_seconds();
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = date_of(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// ISO 8601 in the profile of the W3C (`2026-11`, `2026-11-30`, `2026-11-30T16:53Z`, `…T16:53:20.5+01:00`), or seconds
/// since 1970. A number alone is seconds, not a year.
impl FromStr for Date {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.len() <= 15 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(|seconds: i128| Self(seconds * SECOND)).map_err(|_| Malformed);
        }
        let (date, time) = match text.split_once('T') {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        let mut fields = date.split('-');
        let year = number(fields.next(), 4, 0..=9999)?;
        let month = number(fields.next(), 2, 1..=12)?;
        let day = match (fields.next(), time) {
            (None, None) => 1,
            (day, _) => number(day, 2, 1..=days_of(year, month))?,
        };
        if fields.next().is_some() {
            return Err(Malformed);
        }
        let nanos = time.map_or(Ok(0), nanos_of)?;
        Ok(Self(days_to(year, month, day) * 86_400 * SECOND + nanos))
    }
}

/// A field of so many digits, in a range.
fn number(text: Option<&str>, digits: usize, range: std::ops::RangeInclusive<i128>) -> Result<i128, Malformed> {
    let text = text.filter(|text| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = text.and_then(|text| text.parse().ok());
    number.filter(|number| range.contains(number)).ok_or(Malformed)
}

fn days_of(year: i128, month: i128) -> i128 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The nanoseconds from midnight in UTC to `hh:mm[:ss[.fraction]]` with its zone.
fn nanos_of(time: &str) -> Result<i128, Malformed> {
    let (clock, offset) = match time.strip_suffix('Z') {
        Some(clock) => (clock, 0),
        None => {
            let at = time.rfind(['+', '-']).ok_or(Malformed)?;
            let (clock, zone) = time.split_at_checked(at).ok_or(Malformed)?;
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.get(1..).and_then(|zone| zone.split_once(':')).ok_or(Malformed)?;
            (clock, sign * (number(Some(hours), 2, 0..=23)? * 60 + number(Some(minutes), 2, 0..=59)?))
        }
    };
    let (clock, fraction) = match clock.split_once('.') {
        Some((clock, fraction)) if (1..=9).contains(&fraction.len()) => (clock, fraction),
        Some(_) => return Err(Malformed),
        None => (clock, ""),
    };
    let mut fields = clock.split(':');
    let hour = number(fields.next(), 2, 0..=23)?;
    let minute = number(fields.next(), 2, 0..=59)?;
    let second = match (fields.next(), fraction) {
        (None, "") => 0,
        (second, _) => number(second, 2, 0..=59)?,
    };
    if fields.next().is_some() {
        return Err(Malformed);
    }
    let nanos = if fraction.is_empty() { 0 } else { number(Some(&format!("{fraction:0<9}")), 9, 0..=SECOND - 1)? };
    Ok(((hour * 60 + minute - offset) * 60 + second) * SECOND + nanos)
}

/// A range of addresses: `203.0.113.0/24`, `2001:db8::/32`, or one address. IPv4 addresses mapped to IPv6 are IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressRange {
    first: IpAddr,
    prefix: u32,
}

impl AddressRange {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let all_but = |bits: u32| bits - self.prefix;
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                (first.to_bits() ^ address.to_bits()).checked_shr(all_but(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                (first.to_bits() ^ address.to_bits()).checked_shr(all_but(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for AddressRange {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| Malformed)?;
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let is_short = |prefix: &str| (1..=3).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = match prefix {
            Some(prefix) if !is_short(prefix) => return Err(Malformed),
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or(Malformed)?,
            None => bits,
        };
        match (first, first.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if prefix >= 96 => {
                Ok(Self { first: IpAddr::V4(mapped), prefix: prefix - 96 })
            }
            // What is wider than the mapped addresses has no IPv4 address: those are never compared as IPv6.
            _ => Ok(Self { first, prefix }),
        }
    }
}

/// Whether a text is base64 with its padding.
pub(super) fn is_base64(text: &str) -> bool {
    let content = text.trim_end_matches('=');
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    text.len().is_multiple_of(4) && text.len() - content.len() <= 2 && content.bytes().all(is_digit)
}
