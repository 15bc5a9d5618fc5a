//! API keys: how one is wanted, made, listed and revoked.

use orch_core::{Priority, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::shape::{priority_schema, scopes_schema};

/// What a new key is to be and may do. Fields that are left out bound nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyOrder {
    /// What its owner calls it; its id, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it opens; `infer`, if nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = scopes_schema)]
    pub scopes: Vec<Scope>,
    /// Names of models that it may ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// Requests a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u32>,
    /// Tokens a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<u64>,
    /// Requests at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Tokens in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
    /// The most urgent class of its requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = priority_schema)]
    pub priority: Option<Priority>,
}

/// A key that was made, with its secret: shown once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CreatedKey {
    /// Names it for good.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// The secret: shown now and never again.
    pub token: String,
    /// What it opens.
    #[schema(schema_with = scopes_schema)]
    pub scopes: Vec<Scope>,
}

/// A key as it is listed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Names it for good.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// What it opens.
    #[schema(schema_with = scopes_schema)]
    pub scopes: Vec<Scope>,
    /// Names of models that it may ask for; `null` = all.
    pub models: Option<Vec<String>>,
    /// Requests a minute; `null` = unlimited, as below.
    pub rpm: Option<u32>,
    /// Tokens a minute.
    pub tpm: Option<u64>,
    /// Requests at a time.
    pub concurrency: Option<u32>,
    /// Tokens in its life.
    pub budget: Option<u64>,
    /// The most urgent class of its requests.
    #[schema(schema_with = priority_schema)]
    pub priority: Option<Priority>,
    /// Tokens used so far.
    pub spent: u64,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; when a request of it ended last.
    pub last_used_at: Option<String>,
}

/// What is left when a key has been revoked.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RevokedKey {
    /// Names it for good.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// Keys that were made and are still valid.
    pub keys_left: usize,
}

/// The secret is for whoever asked, and for nobody who looks over a program's shoulder.
impl std::fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedKey").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}
