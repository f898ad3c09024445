//! What a training was made of, so that it is gone on with under the same settings, files and time only.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rhumb_core::{Manifest, RunFolder};
use serde::Serialize;

use crate::exit::Failure;
use crate::machine;

/// Key of the manifest for the time that chat templates are told.
const TIME: &str = "template_unix_s";

/// The manifest of a run of these settings on this model and these files, at this time.
pub(crate) fn manifest(
    name: &str,
    settings: &impl Serialize,
    seed: u64,
    model: &Path,
    data: &[(&str, Vec<PathBuf>)],
    template_unix_s: Option<u64>,
) -> Result<Manifest, Failure> {
    let mut config = serde_json::to_value(settings)
        .map_err(|e| Failure::usage(format!("the settings have no JSON form: {e}")))?;
    if let Some(seconds) = template_unix_s {
        config[TIME] = seconds.into();
    }
    let mut versions = machine::versions();
    versions.insert("model".into(), files(&model_files(model)?)?);
    for (name, paths) in data {
        versions.insert((*name).to_owned(), files(paths)?);
    }
    Ok(Manifest {
        name: name.to_owned(),
        config,
        seeds: vec![seed],
        versions,
        machine: machine::describe(machine::threads()),
        started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs_f64()),
    })
}

/// The time that the chat template of a run was told, where it asks for one.
pub(crate) fn recorded_time(run: &Manifest) -> Option<u64> {
    run.config.get(TIME)?.as_u64()
}

/// The time that chat templates are told: that of the run in the folder, or this second.
pub(crate) fn template_time(earlier: Option<&Manifest>) -> SystemTime {
    let seconds = earlier
        .and_then(recorded_time)
        .or_else(|| Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs()));
    UNIX_EPOCH + Duration::from_secs(seconds.unwrap_or(0))
}

/// A run that goes on has to be the one that stands in the folder: a checkpoint under other settings or on other
/// files would end with numbers that nothing explains.
pub(crate) fn same_run(folder: &Path, earlier: &Manifest, now: &Manifest) -> Result<(), Failure> {
    // This one decides whether a run starts, not what it computes.
    let differs = |key: &&String| *key != "memory_share" && earlier.config.get(*key) != now.config.get(*key);
    let settings = now.config.as_object().into_iter().flat_map(|o| o.keys().filter(differs).cloned());
    let settings: Vec<String> = settings.collect();
    if !settings.is_empty() {
        return Err(Failure::usage(format!(
            "{} holds a run with another {}: resume with the same settings, or choose another --out",
            folder.display(),
            settings.join(", ")
        )));
    }
    let changed = |key: &&str| earlier.versions.get(*key) != now.versions.get(*key);
    let named = ["model", "models", "data", "eval data", "template", "adapter", "scorer", "encoder"];
    let files: Vec<&str> = named.into_iter().filter(changed).collect();
    if files.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{} holds a run that began with other files: the {} changed since; restore them, or choose another --out",
        folder.display(),
        files.join(" and the ")
    )))
}

/// The run of a folder, where one stands there.
pub(crate) fn earlier(out: &Path) -> Result<Option<Manifest>, Failure> {
    let folder = RunFolder::open(out);
    if folder.file("manifest.json").exists() { Ok(Some(folder.manifest()?)) } else { Ok(None) }
}

/// The files of a model that decide what is computed.
pub(crate) fn model_files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let fail =
        |e: std::io::Error| Failure::usage(format!("cannot read {}: {e}; check the path", path.display()));
    let mut out = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let file = entry.map_err(fail)?.path();
        let ending = file.extension().unwrap_or_default();
        if ["json", "safetensors", "jinja"].iter().any(|e| ending == *e) {
            out.push(file);
        }
    }
    out.sort();
    Ok(out)
}

/// Size and FNV-1a, 64 bits, of files one after another, taken over words of eight bytes. It tells mistakes, not
/// attacks.
fn files(paths: &[PathBuf]) -> Result<String, Failure> {
    let (mut size, mut hash) = (0u64, 0xcbf2_9ce4_8422_2325_u64);
    let mut mix = |word: u64| hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    let mut buffer = vec![0; 1 << 16];
    for path in paths {
        let fail = |e: std::io::Error| {
            Failure::usage(format!("cannot read {}: {e}; check the path", path.display()))
        };
        let mut file = File::open(path).map_err(fail)?;
        loop {
            let mut n = 0;
            // Full buffers keep the borders of words where they are, however much one call reads.
            while n < buffer.len() {
                match file.read(&mut buffer[n..]).map_err(fail)? {
                    0 => break,
                    more => n += more,
                }
            }
            size += n as u64;
            buffer[..n].chunks(8).for_each(|c| {
                let mut word = [0; 8];
                word[..c.len()].copy_from_slice(c);
                mix(u64::from_le_bytes(word));
            });
            if n < buffer.len() {
                break;
            }
        }
        mix(size);
    }
    Ok(format!("{size} bytes, {hash:016x}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_changed_byte_changes_the_print_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut bytes: Vec<u8> = (0..200_003u32).map(|i| (i % 251) as u8).collect();
        let print = |b: &[u8]| {
            std::fs::write(&path, b).unwrap();
            files(std::slice::from_ref(&path)).unwrap()
        };
        let first = print(&bytes);
        assert!(first.starts_with("200003 bytes, "), "{first}");
        for at in [0, 65_535, 65_536, 200_002] {
            bytes[at] ^= 1;
            assert_ne!(print(&bytes), first, "{at}");
            bytes[at] ^= 1;
        }
        assert_eq!(print(&bytes), first);
    }
}
