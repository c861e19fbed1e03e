//! Asking the hub: addresses, permission, and what it says of a file.

use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::cache::Cache;
use super::name::HubName;
use crate::error::Error;

/// Where the hub is unless `$HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// Renamed repositories lead on; more than this is a circle.
const MAX_MOVES: usize = 5;

/// The hub as this program may use it, and the cache that it fills.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Where models are kept.
    pub cache: Cache,
    /// The address, without a slash at its end.
    pub endpoint: String,
    /// For repositories that are private or gated; sent to `endpoint` alone.
    pub token: Option<String>,
    /// Whether only the cache may be used.
    pub offline: bool,
    /// How long to wait before a try after one that brought nothing.
    pub retry_wait: Duration,
    agent: Agent,
}

/// What the hub says of a file before it is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    /// Bytes, where the hub says.
    pub(super) size: Option<u64>,
    /// SHA-256 in hexadecimal for large files, else a name for this version of the file.
    pub(super) etag: String,
    /// The commit, so that the other files can be taken from the same.
    pub(super) commit: Option<String>,
}

/// Why bytes did not come.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another try may do.
    Passing(String),
    /// It would not.
    Lasting(Error),
}

impl Hub {
    /// `$HF_ENDPOINT`, `$HF_TOKEN`, and offline where `$RAGLAN_OFFLINE` or `$HF_HUB_OFFLINE` is set to anything but 0, no or false.
    pub fn from_env(cache: Cache) -> Hub {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let on = |name: &str| text(name).is_some_and(|v| !["0", "no", "false"].contains(&v.to_lowercase().as_str()));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        Hub {
            token: text("HF_TOKEN"),
            offline: on("RAGLAN_OFFLINE") || on("HF_HUB_OFFLINE"),
            ..Hub::new(cache, &endpoint)
        }
    }

    /// The hub at an address, without a token.
    pub fn new(cache: Cache, endpoint: &str) -> Hub {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let config = Agent::config_builder()
            .https_only(endpoint.starts_with("https://"))
            .http_status_as_error(false)
            .user_agent(concat!("raglan/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(15)))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)));
        let agent = config.build().new_agent();
        let retry_wait = Duration::from_secs(2);
        Hub { cache, endpoint, token: None, offline: false, retry_wait, agent }
    }

    /// The address of a file at a commit or branch.
    pub(super) fn url(&self, name: &HubName, revision: &str, file: &str) -> String {
        format!("{}/{}/resolve/{revision}/{file}", self.endpoint, name.repository)
    }

    /// What the hub says of a file; `None` where the repository is there and the file is not.
    ///
    /// # Errors
    /// [`Error::Hub`] where the hub does not answer or does not give the file.
    pub(super) fn look(&self, name: &HubName, url: &str) -> Result<Option<RemoteFile>, Error> {
        let mut url = url.to_owned();
        for _ in 0..MAX_MOVES {
            let request = self.agent.head(&url).config().max_redirects(0).max_redirects_will_error(false).build();
            let response = self.authorized(request, &url).call().map_err(|e| unreachable(name, &url, &e))?;
            let headers = response.headers();
            let status = response.status();
            let code = text(headers, "x-error-code").unwrap_or("");
            match text(headers, "location").filter(|_| status.is_redirection()) {
                // The hub itself says what the file is, and where its bytes are kept is of no interest yet.
                Some(_) if headers.contains_key("x-linked-etag") => return Ok(Some(remote_file(headers))),
                Some(path) if path.starts_with('/') && !path.starts_with("//") => {
                    url = format!("{}{path}", self.endpoint)
                }
                Some(elsewhere) => url = elsewhere.to_owned(),
                None if status.is_success() => return Ok(Some(remote_file(headers))),
                None if status.as_u16() == 404 && !["RepoNotFound", "RevisionNotFound"].contains(&code) => {
                    return Ok(None);
                }
                None => return Err(refused(name, &url, status.as_u16())),
            }
        }
        Err(Error::Hub { name: name.to_string(), url, reason: format!("it leads on more than {MAX_MOVES} times") })
    }

    /// The bytes of a file from `start` on; the server may send all of it all the same.
    ///
    /// # Errors
    /// [`Trouble`], by whether the same question may be answered later.
    pub(super) fn get(&self, name: &HubName, url: &str, start: u64) -> Result<Response<Body>, Trouble> {
        let mut request = self.authorized(self.agent.get(url), url);
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        let response = request.call().map_err(|e| Trouble::Passing(e.to_string()))?;
        match response.status().as_u16() {
            200 | 206 | 416 => Ok(response),
            status @ (408 | 429 | 500..) => Err(Trouble::Passing(format!("status {status}"))),
            status => Err(Trouble::Lasting(refused(name, url, status))),
        }
    }

    fn authorized<T>(&self, request: ureq::RequestBuilder<T>, url: &str) -> ureq::RequestBuilder<T> {
        match &self.token {
            Some(token) if url.strip_prefix(&self.endpoint).is_some_and(|rest| rest.starts_with('/')) => {
                request.header("authorization", format!("Bearer {token}"))
            }
            _ => request,
        }
    }
}

fn remote_file(headers: &HeaderMap) -> RemoteFile {
    let either = |first: &str, second: &str| text(headers, first).or_else(|| text(headers, second));
    let etag = either("x-linked-etag", "etag").unwrap_or("unknown");
    RemoteFile {
        size: either("x-linked-size", "content-length").and_then(|size| size.parse().ok()),
        etag: etag.trim_start_matches("W/").trim_matches('"').to_owned(),
        commit: text(headers, "x-repo-commit").filter(|commit| super::name::is_plain(commit)).map(str::to_owned),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn unreachable(name: &HubName, url: &str, error: &ureq::Error) -> Error {
    let reason = format!("{error}; is the network there? a folder or .gguf file works without it");
    Error::Hub { name: name.to_string(), url: url.into(), reason }
}

fn refused(name: &HubName, url: &str, status: u16) -> Error {
    let advice = match status {
        401 | 403 => "the repository is private, gated or not there: accept its terms on its page and set HF_TOKEN",
        404 => "there is no such repository or file: look at its page for the exact name",
        429 => "too many requests: wait, or set HF_TOKEN",
        _ => "try again later",
    };
    Error::Hub { name: name.to_string(), url: url.into(), reason: format!("status {status}: {advice}") }
}
