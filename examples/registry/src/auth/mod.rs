//! Who asks.

use std::sync::Arc;

use axum::http::request::Parts;
use strongroom::policy::{Policy, Principal};

use crate::ecr::error::ApiError;
use crate::http::failure::Failure;

/// Who asks.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Anybody, of a registry without credentials: they may do everything.
    Open,
    /// Nobody in particular.
    Anonymous,
    /// Somebody whom the credentials know.
    Principal(Arc<Known>),
}

/// Somebody whom the credentials know.
#[derive(Debug)]
pub struct Known {
    pub principal: Principal,
    pub policies: Vec<Arc<Policy>>,
}

impl Identity {
    pub fn arn(&self) -> String {
        "anonymous".to_owned()
    }
}

/// Finds out who asks.
#[derive(Debug)]
pub struct Auth {
    account: String,
    region: String,
}

impl Auth {
    /// Of a registry without credentials.
    pub fn open() -> Self {
        Self { account: "000000000000".to_owned(), region: "us-east-1".to_owned() }
    }

    /// The account whose registry this is.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The region that the registry is said to be in.
    pub fn region(&self) -> &str {
        &self.region
    }

    pub fn alias(&self) -> &str {
        "public"
    }

    /// Who signed a request of the API of a service.
    pub fn of_api(&self, _parts: &Parts, _body: &[u8], _service: &str) -> Result<Identity, ApiError> {
        Ok(Identity::Open)
    }
}

impl Auth {
    pub fn of_oci(&self, _parts: &Parts) -> Result<Identity, Failure> {
        Ok(Identity::Open)
    }

    pub fn challenge(&self, _parts: &Parts) -> Failure {
        Failure::denied("log in")
    }
}
