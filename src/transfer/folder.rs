//! Plain folders: their files as blobs, and a pinned [document](crate::transfer::document) that says which file is
//! where.

use rustix::fs::{FileType, Mode};

use crate::blobs::Expect;
use crate::digest::Algorithm;
use crate::transfer::document::{Kind, Row, Writer};
use crate::transfer::error::TransferError;
use crate::transfer::files::{Importing, Job};
use crate::transfer::path::{RawPath, TreePath};
use crate::transfer::pins::NewPin;
use crate::transfer::report::{Imported, LeftOut, Why};
use crate::transfer::tree::Tree;

/// Stores a folder.
pub(crate) fn import(to: &Importing<'_>, tree: &mut Tree, pin: NewPin<'_>) -> Result<Imported, TransferError> {
    let mut left_out = LeftOut::default();
    let Walked { dirs, links, files } = walk(tree, &mut left_out)?;
    let files = to.store_files(tree, files, &mut left_out)?;
    let mut document = Writer::new(to.store, pin);
    for (path, mode) in dirs {
        document.add(&Row::new(Kind::Dir, &path, mode), None)?;
    }
    for file in &files {
        let (digest, bytes) = (Some(file.digest.to_string()), Some(file.len));
        let row = Row { digest, bytes, ..Row::new(Kind::File, &file.path, file.mode) };
        document.add(&row, Some(file.digest))?;
    }
    for (path, mode, target) in links {
        document.add(&Row { target: Some(RawPath(target)), ..Row::new(Kind::Link, &path, mode) }, None)?;
    }
    let replaced = document.finish()?;
    let bytes_in = files.iter().map(|file| file.len).sum();
    Ok(Imported { files: files.len(), bytes_in, left_out, replaced, ..Imported::default() })
}

/// What is in a folder.
#[derive(Default)]
struct Walked {
    /// Parents before their children.
    dirs: Vec<(TreePath, Mode)>,
    links: Vec<(TreePath, Mode, Vec<u8>)>,
    files: Vec<Job>,
}

/// Lists a folder and all directories in it.
fn walk(tree: &mut Tree, left_out: &mut LeftOut) -> Result<Walked, TransferError> {
    let mut walked = Walked::default();
    let mut ahead = vec![None];
    while let Some(dir) = ahead.pop() {
        let Some(listing) = tree.list(dir.as_ref())? else {
            left_out.add(dir.as_ref().map_or(&[], TreePath::as_bytes), Why::Changed);
            continue;
        };
        let mut below = Vec::new();
        for found in listing.found {
            let path = match TreePath::of(dir.as_ref(), &found.name) {
                Ok(path) => path,
                Err(long) => {
                    left_out.add(&long.0, Why::TooLong);
                    continue;
                }
            };
            match found.kind {
                FileType::Directory => below.push(Some(path)),
                FileType::RegularFile => {
                    walked.files.push(Job { path, len: found.len, expect: Expect::Algorithm(Algorithm::Sha256) });
                }
                FileType::Symlink => match tree.read_link(&path)? {
                    Some(target) => walked.links.push((path, found.mode, target)),
                    None => left_out.add(path.as_bytes(), Why::Changed),
                },
                _ => left_out.add(path.as_bytes(), Why::Special),
            }
        }
        walked.dirs.extend(dir.map(|dir| (dir, listing.mode)));
        ahead.extend(below.into_iter().rev());
    }
    Ok(walked)
}
