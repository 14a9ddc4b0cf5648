//! The journal: one JSON line per executed call, written before its response, replayed at the start.
//!
//! A line is written in one system call and not fsynced: the simulator stands for another company's machine, which does not lose
//! power together with ours, and whose disk must not slow down our measurements. A killed process loses nothing that way; at
//! worst the last line is torn, and then its call never got a response.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::idempotency::Key;
use crate::intent::{Intent, Refusal};
use crate::refund::Refund;

/// An executed call: its response, and the intent and refund after it, so that replaying needs no rules.
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
    /// The response is a simulated error (500), with or without an effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) broken: bool,
}

/// The position of a record in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    start: u64,
    length: u32,
}

pub(crate) struct Journal {
    file: File,
    /// The end of the last whole line. The next line is written here, so that it overwrites the rest of a failed write.
    end: u64,
    line: Vec<u8>,
}

impl Journal {
    /// Opens the journal in this folder, and replays every record in it, oldest first.
    pub(crate) fn open(data: &Path, mut replay: impl FnMut(Record, Position)) -> io::Result<Journal> {
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
            replay(record, Position::new(end, length)?);
            end += length as u64;
        }
        if !line.is_empty() {
            tracing::warn!(bytes = line.len(), "the last line of the journal is torn; its call never got a response");
            file.set_len(end)?;
        }
        Ok(Journal { file, end, line })
    }

    pub(crate) fn append(&mut self, record: &Record) -> io::Result<Position> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.line.push(b'\n');
        let position = Position::new(self.end, self.line.len())?;
        self.file.write_all_at(&self.line, self.end)?;
        self.end += u64::from(position.length);
        Ok(position)
    }

    pub(crate) fn read(&self, position: Position) -> io::Result<Record> {
        let mut line = vec![0; position.length as usize];
        self.file.read_exact_at(&mut line, position.start)?;
        Ok(serde_json::from_slice(&line)?)
    }
}

impl Position {
    fn new(start: u64, length: usize) -> io::Result<Position> {
        let length = u32::try_from(length).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Position { start, length })
    }
}
