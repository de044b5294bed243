//! Pages, and the tokens behind which the next one begins.
//!
//! A token names the last thing that was looked at, not how many there were: so pages neither repeat nor leave out
//! what is there all along, whatever comes and goes meanwhile. It is good for the operation that gave it, and holds
//! nothing that its owner was not shown.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::error::ApiError;

/// What is asked of a list: where to begin, and how much.
#[derive(Debug)]
pub struct Pager {
    scope: String,
    /// The position behind which the page begins.
    pub after: Option<String>,
    pub limit: usize,
}

impl Pager {
    /// The page that an input asks for, of an operation that gives `default` items where no number is asked for.
    /// `scope` is what the list is of: a token of another list is refused.
    ///
    /// # Errors
    /// For a token that this operation has not given.
    pub fn of(input: &Map<String, Value>, scope: impl Into<String>, default: usize) -> Result<Self, ApiError> {
        let scope = scope.into();
        let limit = input.get("maxResults").and_then(Value::as_u64);
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default);
        let token = input.get("nextToken").and_then(Value::as_str).filter(|token| !token.is_empty());
        let after = token.map(|token| position(token, &scope).ok_or_else(invalid_token)).transpose()?;
        Ok(Self { scope, after, limit })
    }

    /// The page as the answer of an operation: its items, and where another one follows, the token behind the position
    /// with which this one ended.
    pub fn answer(&self, member: &str, items: impl Into<Value>, end: Option<&str>) -> Value {
        let mut answer = Map::from_iter([(member.to_owned(), items.into())]);
        answer.extend(end.map(|end| ("nextToken".to_owned(), self.token(end))));
        Value::Object(answer)
    }

    /// The token behind a position.
    pub fn token(&self, position: &str) -> Value {
        Value::String(URL_SAFE_NO_PAD.encode(format!("1\0{}\0{position}", self.scope)))
    }

    /// The position behind which the page begins, parsed.
    ///
    /// # Errors
    /// For one that is none.
    pub fn parsed<T: FromStr>(&self) -> Result<Option<T>, ApiError> {
        self.after.as_deref().map(|after| after.parse().map_err(|_| invalid_token())).transpose()
    }
}

fn position(token: &str, scope: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let position = text.strip_prefix("1\0")?.strip_prefix(scope)?.strip_prefix('\0')?;
    Some(position.to_owned())
}

/// Also for a token whose position is none.
pub fn invalid_token() -> ApiError {
    ApiError::invalid_parameter("nextToken", "The token is not one that this operation has given for this list")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_good_for_its_list_alone() {
        let input = |token: Value| json!({ "maxResults": 7, "nextToken": token }).as_object().unwrap().clone();
        let first = Pager::of(&Map::new(), "ListImages/a", 100).unwrap();
        assert_eq!((first.after.as_deref(), first.limit), (None, 100));
        let token = first.token("sha256:00 v1");
        let next = Pager::of(&input(token.clone()), "ListImages/a", 100).unwrap();
        assert_eq!((next.after.as_deref(), next.limit), (Some("sha256:00 v1"), 7));
        for (token, scope) in [(token, "ListImages/b"), (json!("!"), "ListImages/a"), (json!("AAAA"), "ListImages/a")] {
            assert_eq!(Pager::of(&input(token), scope, 100).unwrap_err().kind(), "InvalidParameterException");
        }
    }
}
