//! What a path names.

use strongroom::registry::{Reference, RepositoryName};
use strongroom::{Digest, UploadId};

use crate::http::failure::{Code, Failure};

/// An endpoint of the distribution API, with the names in its path parsed.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Version,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(RepositoryName),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(RepositoryName, Digest),
    /// `/v2/<name>/blobs/<digest>`
    Blob(RepositoryName, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(RepositoryName),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(RepositoryName, UploadId),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(RepositoryName, Reference),
}

impl Route {
    /// Parses a path. Names of repositories have slashes, and may hold any of the words: `a/blobs/b` is one. So the
    /// path is taken apart from its end, where no part has a slash.
    ///
    /// A path is taken as it stands, so that it means to a proxy before the registry what it means here: nothing in it
    /// needs to be encoded, and of what could be only the colon is, since some clients do that in digests.
    pub fn parse(path: &str) -> Result<Self, Failure> {
        let path = path.replace("%3A", ":").replace("%3a", ":");
        if path.contains('%') {
            return Err(Failure::bad_request(Code::Unsupported, "nothing but the colon may be encoded in a path"));
        }
        match &*path {
            "/v2" | "/v2/" => return Ok(Self::Version),
            "/v2/_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        let rest = path.strip_prefix("/v2/").ok_or_else(Failure::no_such_endpoint)?;
        let (head, last) = rest.rsplit_once('/').ok_or_else(Failure::no_such_endpoint)?;
        let (name, kind) = head.rsplit_once('/').ok_or_else(Failure::no_such_endpoint)?;
        match (kind, last) {
            ("tags", "list") => Ok(Self::Tags(name.parse()?)),
            ("referrers", digest) => Ok(Self::Referrers(name.parse()?, digest.parse()?)),
            ("manifests", reference) => Ok(Self::Manifest(name.parse()?, reference.parse()?)),
            ("blobs", "uploads") => Ok(Self::Uploads(name.parse()?)),
            ("blobs", digest) => Ok(Self::Blob(name.parse()?, digest.parse()?)),
            ("uploads", id) => {
                let name = name.strip_suffix("/blobs").ok_or_else(Failure::no_such_endpoint)?.parse()?;
                match id {
                    "" => Ok(Self::Uploads(name)),
                    id => Ok(Self::Upload(name, id.parse().map_err(|_| Failure::upload_unknown(id))?)),
                }
            }
            _ => Err(Failure::no_such_endpoint()),
        }
    }

    /// The methods that it has, for the header `Allow`.
    pub fn methods(&self) -> &'static str {
        match self {
            Self::Version => "GET, HEAD",
            Self::Catalog | Self::Tags(_) | Self::Referrers(..) => "GET",
            Self::Blob(..) => "GET, HEAD, DELETE",
            Self::Uploads(_) => "POST",
            Self::Upload(..) => "GET, PATCH, PUT, DELETE",
            Self::Manifest(..) => "GET, HEAD, PUT, DELETE",
        }
    }
}
