//! AWS Signature Version 4, as much of it as requests to KMS need: a method, no query, the path `/`, headers and a
//! body.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::time::{SystemTime, UNIX_EPOCH};

use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::aws::AwsCredentials;
use crate::digest::encode_hex;

/// What is signed.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// All that are sent and mean something, their names in lower case, in the order of their names, without spaces
    /// around values.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

/// Where and when a signature is good.
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// As [`timestamp`] shows it, and as the header `x-amz-date` has it.
    pub(super) time: &'a str,
}

/// The header `authorization`.
pub(super) fn authorization(request: &Request<'_>, scope: &Scope<'_>, credentials: &AwsCredentials) -> String {
    let date = scope.time.get(..8).unwrap_or_default();
    let place = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let signed = request.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = request.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!("{}\n/\n\n{lines}\n{signed}\n{}", request.method, sha256(request.body));
    let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{place}\n{}", scope.time, sha256(canonical.as_bytes()));

    let mut key = Zeroizing::new([b"AWS4", credentials.secret_access_key.as_bytes()].concat());
    for part in [date, scope.region, scope.service, "aws4_request"] {
        key = Zeroizing::new(hmac_sha256(&key, part).as_ref().to_vec());
    }
    let signature = encode_hex(hmac_sha256(&key, &to_sign).as_ref());
    let id = &credentials.access_key_id;
    format!("AWS4-HMAC-SHA256 Credential={id}/{place}, SignedHeaders={signed}, Signature={signature}")
}

fn sha256(bytes: &[u8]) -> String {
    encode_hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hmac_sha256(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// A time as `20150830T123600Z`, in UTC. What is before 1970 is taken for 1970.
pub(super) fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date of the Gregorian calendar, years beginning in March:
    // https://howardhinnant.github.io/date_algorithms.html
    let days = days + 719_468; // since 0000-03-01
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let day = day - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TOKEN: &str = concat!(
        "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRq",
        "TflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75Y",
        "U9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9K",
        "SYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==",
    );

    type Headers = &'static [(&'static str, &'static str)];

    const HOST: (&str, &str) = ("host", "example.amazonaws.com");
    const DATE: (&str, &str) = ("x-amz-date", "20150830T123600Z");

    /// The published test suite of Signature Version 4: `get-vanilla`, `post-vanilla`, `post-header-key-sort`,
    /// `post-x-www-form-urlencoded-parameters` and `post-sts-header-before`, with the credentials that they share.
    #[test]
    fn signs_as_published() {
        let credentials = AwsCredentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let scope = Scope { region: "us-east-1", service: "service", time: DATE.1 };
        let cases: [(&str, Headers, &str, &str); 5] = [
            ("GET", &[HOST, DATE], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", &[HOST, DATE], "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "POST",
                &[HOST, ("my-header1", "value1"), DATE],
                "",
                "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
            ),
            (
                "POST",
                &[
                    ("content-length", "13"),
                    ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
                    HOST,
                    ("x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"),
                    DATE,
                ],
                "Param1=value1",
                "328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422",
            ),
            (
                "POST",
                &[HOST, DATE, ("x-amz-security-token", TOKEN)],
                "",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
        ];
        for (method, headers, body, signature) in cases {
            let request = Request { method, headers, body: body.as_bytes() };
            let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
            assert_eq!(
                authorization(&request, &scope, &credentials),
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                     SignedHeaders={}, Signature={signature}",
                    names.join(";")
                )
            );
        }
    }

    #[test]
    fn times_are_dates_of_the_calendar() {
        for (seconds, shown) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (1_709_251_199, "20240229T235959Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), shown);
        }
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1)), "19700101T000000Z");
    }
}
