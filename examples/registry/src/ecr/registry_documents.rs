//! What belongs to the registry as a whole: documents in named files of the store.

use serde::{Deserialize, Serialize};
use serde_json::json;
use strongroom::{Digest, Error, ExpectNamed, PutNamed, Store};

use super::error::ApiError;

/// The names of the files. Clients of the store see them; what other programs keep there has other names.
pub const POLICY: &str = ".registry/policy";
pub const SETTINGS: &str = ".registry/settings";
pub const EXCLUSIONS: &str = ".registry/pull-time-exclusions";
pub const CATALOG: &str = ".registry/catalog";

/// A document as it was read: the digest says which one it is.
pub struct Found {
    pub digest: Digest,
    pub content: Vec<u8>,
}

/// A document, if there is one.
pub fn read(store: &Store, name: &str) -> strongroom::Result<Option<Found>> {
    match store.named().get(name) {
        Ok(found) => Ok(Some(Found { digest: *found.blob.digest(), content: found.blob.bytes()?.to_vec() })),
        Err(Error::NamedNotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A document of JSON; what an empty one says, where there is none.
pub fn read_json<T: Default + for<'a> Deserialize<'a>>(store: &Store, name: &str) -> Result<T, ApiError> {
    parse(name, read(store, name)?.as_ref())
}

fn parse<T: Default + for<'a> Deserialize<'a>>(name: &str, found: Option<&Found>) -> Result<T, ApiError> {
    let Some(found) = found else { return Ok(T::default()) };
    serde_json::from_slice(&found.content).map_err(|error| {
        tracing::error!(document = name, %error, "a document can't be read");
        ApiError::server("a document of the registry can't be read")
    })
}

/// Sets a document.
pub fn write(store: &Store, name: &str, content: &[u8]) -> strongroom::Result<()> {
    store.named().put(name, content, PutNamed::new())?;
    Ok(())
}

/// Removes a document; `None` where there was none.
pub fn remove(store: &Store, name: &str) -> Result<Option<()>, ApiError> {
    match store.named().remove(name, ExpectNamed::Any) {
        Ok(_) => Ok(Some(())),
        Err(Error::NamedNotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Changes a document of JSON as it is: again, where somebody else has changed it meanwhile.
pub fn change<T, R>(
    store: &Store,
    name: &str,
    mut change: impl FnMut(&mut T) -> Result<R, ApiError>,
) -> Result<R, ApiError>
where
    T: Default + Serialize + for<'a> Deserialize<'a>,
{
    loop {
        let before = read(store, name)?;
        let mut document: T = parse(name, before.as_ref())?;
        let result = change(&mut document)?;
        let put = PutNamed::new().expect(before.map(|before| before.digest).into());
        match store.named().put(name, json!(document).to_string(), put) {
            Err(Error::NamedChanged { .. }) => {}
            other => return other.map(|_| result).map_err(ApiError::from),
        }
    }
}
