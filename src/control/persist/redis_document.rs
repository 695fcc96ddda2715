//! An engine as the state file has it, with the keys of the partition map.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{RedisIdentity, RedisSpec, RedisTls, RedisUrl, RedisUrlError};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RedisDocument {
    urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sentinel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password_file: Option<PathBuf>,
    prefix: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<TlsDocument>,
    wait_replicas: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cert: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
}

impl From<&RedisSpec> for RedisDocument {
    fn from(spec: &RedisSpec) -> Self {
        let identity = spec.tls.identity.as_ref();
        let tls = TlsDocument {
            ca: spec.tls.ca.clone(),
            cert: identity.map(|identity| identity.cert.clone()),
            key: identity.map(|identity| identity.key.clone()),
        };
        Self {
            urls: spec.urls.iter().map(RedisUrl::to_string).collect(),
            sentinel: spec.sentinel.clone(),
            user: spec.user.clone(),
            password_file: spec.password_file.clone(),
            prefix: spec.prefix.clone(),
            tls: (spec.tls != RedisTls::default()).then_some(tls),
            wait_replicas: spec.wait_replicas,
        }
    }
}

impl RedisDocument {
    pub(super) fn into_spec(self) -> Result<RedisSpec, RedisUrlError> {
        let urls = self.urls.iter().map(|url| RedisUrl::parse(url));
        let tls = self.tls.map_or_else(RedisTls::default, |tls| RedisTls {
            ca: tls.ca,
            identity: tls
                .cert
                .zip(tls.key)
                .map(|(cert, key)| RedisIdentity { cert, key }),
        });
        Ok(RedisSpec {
            urls: urls.collect::<Result<_, _>>()?,
            sentinel: self.sentinel,
            user: self.user,
            password_file: self.password_file,
            prefix: self.prefix,
            tls,
            wait_replicas: self.wait_replicas,
        })
    }
}
