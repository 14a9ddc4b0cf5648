//! The journal: one JSON line per call that was carried out, written before its answer, replayed at the start.
//!
//! A line goes to the operating system in one write and is not fsynced: this simulates another company's machine, which does
//! not lose power together with ours, and whose disk must not slow down what is measured here. A killed process loses
//! nothing that way; at worst the last line is torn, and then its call was never answered.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::idempotency::Key;
use crate::intent::{Intent, Refusal};
use crate::refund::Refund;

/// A call and all it did: the intent as it is afterwards, so that replaying needs no rules, and what was answered.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    /// Unix milliseconds.
    pub(crate) at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<Key>,
    pub(crate) intent: Intent,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refund: Option<Refund>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refusal: Option<Refusal>,
    /// What was answered is an error of ours, whatever the effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) broken: bool,
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    start: u64,
    length: u32,
}

pub(crate) struct Journal {
    file: File,
    /// Where the last whole line ends. Lines are written here and not wherever the file ends, so that what a failed
    /// write left behind is overwritten.
    end: u64,
    line: Vec<u8>,
}

impl Journal {
    /// Opens the journal in this folder and hands over every record in it, oldest first.
    pub(crate) fn open(data: &Path, mut replay: impl FnMut(Record, Place)) -> io::Result<Journal> {
        fs::create_dir_all(data)?;
        let path = data.join("journal.jsonl");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        file.try_lock().map_err(|error| {
            io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{} is in use by another process: {error}", path.display()),
            )
        })?;

        let (mut end, mut line) = (0, Vec::new());
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            let record = serde_json::from_slice(&line).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} at byte {end}: {error}", path.display()))
            })?;
            replay(record, Place::new(end, length)?);
            end += length as u64;
        }
        if !line.is_empty() {
            tracing::warn!(bytes = line.len(), "the last line of the journal is torn; its call was never answered");
            file.set_len(end)?;
        }
        Ok(Journal { file, end, line })
    }

    pub(crate) fn append(&mut self, record: &Record) -> io::Result<Place> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.line.push(b'\n');
        let place = Place::new(self.end, self.line.len())?;
        self.file.write_all_at(&self.line, self.end)?;
        self.end += u64::from(place.length);
        Ok(place)
    }

    pub(crate) fn read(&self, place: Place) -> io::Result<Record> {
        let mut line = vec![0; place.length as usize];
        self.file.read_exact_at(&mut line, place.start)?;
        Ok(serde_json::from_slice(&line)?)
    }
}

impl Place {
    fn new(start: u64, length: usize) -> io::Result<Place> {
        let length = u32::try_from(length).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Place { start, length })
    }
}
