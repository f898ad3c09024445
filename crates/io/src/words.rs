//! Long lists of numbers that move to a file when they outgrow their share of memory.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::IoError;

/// A growing list of 32-bit words: in memory up to a limit, in a file past it.
#[derive(Debug)]
pub struct WordsWriter {
    memory: Vec<u32>,
    limit: u64,
    path: PathBuf,
    spill: Option<Spill>,
    len: u64,
}

/// A list of 32-bit words that is read by position. The file, if there is one, goes with the list.
#[derive(Debug)]
pub struct Words {
    len: u64,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<u32>),
    File(Mutex<Spill>),
}

#[derive(Debug)]
struct Spill {
    path: PathBuf,
    made_folder: bool,
    file: BufWriter<File>,
}

impl Drop for Spill {
    fn drop(&mut self) {
        // What cannot be removed is a file too many, which is no reason to fail.
        let _ = fs::remove_file(&self.path);
        if let Some(dir) = self.path.parent().filter(|_| self.made_folder) {
            let _ = fs::remove_dir(dir);
        }
    }
}

impl Spill {
    fn create(path: &Path) -> Result<Self, IoError> {
        let made_folder = path.parent().is_some_and(|dir| !dir.exists());
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|e| IoError::io("create", dir, e))?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.map_err(|e| IoError::io("create", path, e))?;
        Ok(Spill { path: path.to_owned(), made_folder, file: BufWriter::with_capacity(1 << 18, file) })
    }

    fn write(&mut self, words: &[u32]) -> Result<(), IoError> {
        words
            .iter()
            .try_for_each(|w| self.file.write_all(&w.to_le_bytes()))
            .map_err(|e| IoError::io("write", &self.path, e))
    }
}

impl WordsWriter {
    /// An empty list that may take `limit` bytes of memory before it moves to the file `path`, which is only then
    /// made, with its folder.
    pub fn new(limit: u64, path: impl Into<PathBuf>) -> Self {
        WordsWriter { memory: Vec::new(), limit, path: path.into(), spill: None, len: 0 }
    }

    /// Appends words.
    ///
    /// # Errors
    /// [`IoError`] when the file cannot be made or written.
    pub fn push(&mut self, words: &[u32]) -> Result<(), IoError> {
        self.len += words.len() as u64;
        if self.spill.is_none() && 4 * self.len > self.limit {
            let mut spill = Spill::create(&self.path)?;
            spill.write(&std::mem::take(&mut self.memory))?;
            self.spill = Some(spill);
        }
        match &mut self.spill {
            Some(spill) => spill.write(words),
            None => {
                self.memory.extend_from_slice(words);
                Ok(())
            }
        }
    }

    /// Words so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True without any word.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The list for reading.
    ///
    /// # Errors
    /// [`IoError`] when the end of the file cannot be written.
    pub fn finish(self) -> Result<Words, IoError> {
        let place = match self.spill {
            Some(mut spill) => {
                spill.file.flush().map_err(|e| IoError::io("write", &spill.path, e))?;
                Place::File(Mutex::new(spill))
            }
            None => {
                let mut memory = self.memory;
                memory.shrink_to_fit();
                Place::Memory(memory)
            }
        };
        Ok(Words { len: self.len, place })
    }
}

impl From<Vec<u32>> for Words {
    fn from(words: Vec<u32>) -> Self {
        Words { len: words.len() as u64, place: Place::Memory(words) }
    }
}

impl Words {
    /// Words of the list.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True without any word.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file, if the list outgrew its memory.
    pub fn file(&self) -> Option<PathBuf> {
        match &self.place {
            Place::Memory(_) => None,
            Place::File(spill) => Some(spill.lock().unwrap_or_else(PoisonError::into_inner).path.clone()),
        }
    }

    /// The `n` words from place `at` on.
    ///
    /// # Errors
    /// [`IoError`] when they end behind the last word, or the file cannot be read.
    ///
    /// # Cost
    /// One read of `4 n` bytes, or a copy.
    pub fn read(&self, at: u64, n: usize) -> Result<Vec<u32>, IoError> {
        if at.checked_add(n as u64).is_none_or(|end| end > self.len) {
            let what = format!("a list of {} words was asked for {n} from place {at} on", self.len);
            return Err(IoError::Missing { path: PathBuf::new(), what });
        }
        match &self.place {
            Place::Memory(words) => Ok(words[at as usize..at as usize + n].to_vec()),
            Place::File(spill) => {
                let mut bytes = vec![0; 4 * n];
                // A thread that panicked while it held the lock leaves a file position, which is set anew here.
                let spill = spill.lock().unwrap_or_else(PoisonError::into_inner);
                let mut file = spill.file.get_ref();
                file.seek(SeekFrom::Start(4 * at))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(|e| IoError::io("read", &spill.path, e))?;
                Ok(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn filled(limit: u64, path: &Path) -> Words {
        let mut w = WordsWriter::new(limit, path);
        for i in 0..100u32 {
            w.push(&[i, i * i, u32::MAX - i]).unwrap();
        }
        assert_eq!(w.len(), 300);
        w.finish().unwrap()
    }

    #[test]
    fn a_list_reads_the_same_from_memory_and_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/words");
        let memory = filled(1200, &path);
        assert!(memory.file().is_none() && !path.exists());
        let file = filled(1199, &path);
        assert_eq!((file.file(), fs::metadata(&path).unwrap().len()), (Some(path.clone()), 1200));
        for (at, n) in [(0, 300), (7, 5), (299, 1), (300, 0)] {
            assert_eq!(file.read(at, n).unwrap(), memory.read(at, n).unwrap());
        }
        assert_eq!(file.read(3, 3).unwrap(), [1, 1, u32::MAX - 1]);
        assert!(file.read(299, 2).is_err() && memory.read(u64::MAX, 2).is_err());
        drop(file);
        assert!(
            !path.exists() && !dir.path().join("run").exists(),
            "the file and its folder go with the list"
        );
    }

    #[test]
    fn a_folder_that_was_there_stays_and_a_file_that_cannot_be_made_is_told() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(0, &dir.path().join("words")));
        assert!(dir.path().is_dir());
        fs::write(dir.path().join("file"), "").unwrap();
        let mut w = WordsWriter::new(0, dir.path().join("file/words"));
        assert!(w.push(&[1]).unwrap_err().to_string().contains("cannot create"));
    }
}
