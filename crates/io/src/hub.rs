//! Downloads from the Hugging Face Hub: the only part of the library that uses the network, and only when asked.
//!
//! Files land in the cache that other tools of the Hub share (`HF_HOME`, by default `~/.cache/huggingface`), so that
//! a model is downloaded once and an interrupted download goes on. `HF_ENDPOINT` names another server.

use std::path::PathBuf;

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

/// Small files of a model; each may be absent except the first.
const SMALL: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const RETRIES: usize = 5;

/// Where to download from and to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubOptions {
    /// Branch, tag or commit; `main` when absent.
    pub revision: Option<String>,
    /// Access token; when absent, the one that the Hub's own tools have stored.
    pub token: Option<String>,
    /// Server; when absent, `HF_ENDPOINT` or the Hub.
    pub endpoint: Option<String>,
    /// Cache folder; when absent, the one of `HF_HOME`.
    pub cache: Option<PathBuf>,
}

/// Why a model could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The name is not of the form that the Hub uses.
    #[error("{name:?} names no model: give ORG/NAME, or ORG/NAME/FILE.gguf for one file")]
    Name {
        /// What was given.
        name: String,
    },
    /// The server does not have it, or does not show it.
    #[error(
        "{what}: the server says {status}; check the name, and for a gated model accept its terms and log in"
    )]
    Refused {
        /// The model or file.
        what: String,
        /// The status code.
        status: u16,
    },
    /// The model has no weights that can be read.
    #[error("{name} has no safetensors; {hint}")]
    Weights {
        /// The model.
        name: String,
        /// What it has instead.
        hint: String,
    },
    /// The connection failed.
    #[error("cannot download {what}: {source}; check the network and try again, what has arrived is kept")]
    Download {
        /// The model or file.
        what: String,
        /// What the client says.
        source: Box<ApiError>,
    },
}

/// How far a download has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress<'a> {
    /// The file.
    pub file: &'a str,
    /// Bytes that have arrived.
    pub done: u64,
    /// Its size.
    pub total: u64,
}

/// Downloads what `name` needs to run and returns its folder, or for `ORG/NAME/FILE.gguf` that file.
///
/// Only files of known names are taken: configuration, tokenizer, template and safetensors weights. Files that the
/// cache already has are not asked for again.
///
/// # Errors
/// [`HubError`].
pub fn pull(
    name: &str,
    options: &HubOptions,
    progress: &mut dyn FnMut(&PullProgress<'_>),
) -> Result<PathBuf, HubError> {
    let (model, file) = split(name)?;
    let cache = options.cache.clone().map_or_else(Cache::from_env, Cache::new);
    let mut builder = ApiBuilder::from_env().with_progress(false).with_retries(RETRIES);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if let Some(folder) = &options.cache {
        builder = builder.with_cache_dir(folder.clone());
    }
    if let Some(token) = &options.token {
        builder = builder.with_token(Some(token.clone()));
    }
    let api = builder.build().map_err(|e| failed(model, e))?;
    let revision = options.revision.clone().unwrap_or_else(|| "main".to_owned());
    let repo = |revision| Repo::with_revision(model.to_owned(), RepoType::Model, revision);
    let info = api.repo(repo(revision)).info().map_err(|e| failed(model, e))?;
    // From here on the commit, so that the files belong together even when the branch moves meanwhile.
    let cached = cache.repo(repo(info.sha.clone()));
    let remote = api.repo(repo(info.sha));
    let mut fetch = |file: &str| match cached.get(file) {
        Some(path) => Ok(path),
        None => download(&remote, file, progress),
    };

    let files: Vec<&str> = info.siblings.iter().map(|s| s.rfilename.as_str()).collect();
    if let Some(file) = file {
        return fetch(file);
    }
    let weights = weights(model, &files)?;
    let config = fetch(SMALL[0])?;
    for small in SMALL[1..].iter().filter(|f| files.contains(f)) {
        fetch(small)?;
    }
    for file in weights {
        fetch(file)?;
    }
    Ok(config.parent().map_or_else(|| config.clone(), PathBuf::from))
}

/// `ORG/NAME` or `ORG/NAME/FILE.gguf`.
fn split(name: &str) -> Result<(&str, Option<&str>), HubError> {
    let good = |part: &str| {
        part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !part.is_empty()
            && !part.starts_with('.')
    };
    let parts: Vec<_> = name.split('/').collect();
    let refused = || HubError::Name { name: name.to_owned() };
    if !parts.iter().all(|p| good(p)) {
        return Err(refused());
    }
    match parts[..] {
        [_, _] => Ok((name, None)),
        [org, model, file] if file.to_ascii_lowercase().ends_with(".gguf") => {
            Ok((&name[..org.len() + 1 + model.len()], Some(file)))
        }
        _ => Err(refused()),
    }
}

/// The weight files of a model: the single one, or index and shards.
fn weights<'a>(model: &str, files: &[&'a str]) -> Result<Vec<&'a str>, HubError> {
    if let Some(single) = files.iter().find(|f| **f == SINGLE) {
        return Ok(vec![single]);
    }
    let shards: Vec<_> = files.iter().copied().filter(|f| is_shard(f)).collect();
    if let Some(index) = files.iter().find(|f| **f == INDEX)
        && !shards.is_empty()
    {
        return Ok([&[*index], &shards[..]].concat());
    }
    let mut gguf = files.iter().filter(|f| f.to_ascii_lowercase().ends_with(".gguf"));
    let hint = match gguf.next() {
        Some(file) => format!("take one of its GGUF files, for example {model}/{file}"),
        None => "take a model with safetensors weights, or convert it first".to_owned(),
    };
    Err(HubError::Weights { name: model.to_owned(), hint })
}

/// `model-00001-of-00002.safetensors`.
fn is_shard(file: &str) -> bool {
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    file.strip_prefix("model-")
        .and_then(|f| f.strip_suffix(".safetensors"))
        .and_then(|f| f.split_once("-of-"))
        .is_some_and(|(i, n)| number(i) && number(n))
}

fn download(
    remote: &ApiRepo,
    file: &str,
    progress: &mut dyn FnMut(&PullProgress<'_>),
) -> Result<PathBuf, HubError> {
    let meter = Meter { file, done: 0, total: 0, report: progress };
    remote.download_with_progress(file, meter).map_err(|e| failed(file, e))
}

struct Meter<'a> {
    file: &'a str,
    done: u64,
    total: u64,
    report: &'a mut dyn FnMut(&PullProgress<'_>),
}

impl Meter<'_> {
    fn tell(&mut self) {
        (self.report)(&PullProgress { file: self.file, done: self.done, total: self.total });
    }
}

impl Progress for Meter<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        (self.done, self.total) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        self.tell();
    }

    fn finish(&mut self) {
        self.done = self.total;
        self.tell();
    }
}

/// The client keeps the status code in the text of its error only.
fn failed(what: &str, source: ApiError) -> HubError {
    let text = source.to_string();
    let status = text.rsplit_once("http status: ").and_then(|(_, s)| s.get(..3)?.parse().ok());
    match status {
        Some(status @ (401 | 403 | 404)) => HubError::Refused { what: what.to_owned(), status },
        _ => HubError::Download { what: what.to_owned(), source: Box::new(source) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_hub_are_refused() {
        assert_eq!(split("org/name").unwrap(), ("org/name", None));
        assert_eq!(split("org/name/w-Q8_0.gguf").unwrap(), ("org/name", Some("w-Q8_0.gguf")));
        for name in [
            "name",
            "",
            "org/",
            "/name",
            "org/../x",
            "org/name/x.bin",
            "org/na me",
            "a/b/c/d.gguf",
            "a/.gguf/b",
        ] {
            assert!(matches!(split(name), Err(HubError::Name { .. })), "{name}");
        }
    }

    #[test]
    fn only_weights_of_known_names_are_taken() {
        let single = ["model.safetensors", INDEX, "model-00001-of-00001.safetensors"];
        assert_eq!(weights("a/b", &single).unwrap(), ["model.safetensors"]);
        let sharded = [INDEX, "model-00001-of-00002.safetensors", "../model-2-of-2.safetensors", "x.bin"];
        assert_eq!(weights("a/b", &sharded).unwrap(), [INDEX, "model-00001-of-00002.safetensors"]);
        let message = weights("a/b", &["pytorch_model.bin", "w.gguf"]).unwrap_err().to_string();
        assert!(message.contains("a/b/w.gguf"), "{message}");
    }
}
