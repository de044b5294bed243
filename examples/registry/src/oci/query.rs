//! What follows the `?`.

use axum::http::{StatusCode, Uri};

use crate::http::failure::{Code, Failure};

/// More parameters are refused: each takes more memory than its text.
const MAX_PARAMETERS: usize = 200;

/// The parameters of a request, in their order; a name may come more than once.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn of(uri: &Uri) -> Result<Self, Failure> {
        if uri.query().is_some_and(|query| query.split('&').count() > MAX_PARAMETERS) {
            let message = format!("more than {MAX_PARAMETERS} parameters");
            return Err(Failure::new(StatusCode::URI_TOO_LONG, Code::Unsupported, message));
        }
        let query =
            axum::extract::Query::try_from_uri(uri).map_err(|rejection| Failure::bad_query(rejection.body_text()))?;
        Ok(Self(query.0))
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a name, parsed, with the code of the error that a malformed one is.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str, code: Code) -> Result<Option<T>, Failure> {
        let parse =
            |value: &str| value.parse().map_err(|_| Failure::bad_request(code, format!("invalid {name}: {value:?}")));
        self.get(name).map(parse).transpose()
    }
}
