//! Importing and exporting folders and image layouts.

use std::path::Path;

use serde_json::{Value, json};
use strongroom::Store;
use strongroom::registry::{RepositoryName, RepositorySettings};
use strongroom::transfer::{
    self, Counts, Existing, Exported, Imported, RegistryExport, RegistryImport, Skips, SpecialBits,
};

use crate::failure::Failure;
use crate::output::{Output, escaped, shown, size, tell};

/// Stores a folder, or an image layout, under a name.
pub fn import(store: &Store, from: &Path, name: &str, existing: Existing, output: &Output) -> Result<(), Failure> {
    let bar = output.bytes(0);
    let report = transfer::import(store, from, name, existing, output.progress(&bar))?;
    bar.finish_and_clear();
    let Imported { files, bytes_in, bytes_stored, left_out, replaced, .. } = &report;
    let replaced = replaced.map(|digest| digest.to_string());
    let listed = || left_out.listed().map(|(path, why)| (path, why.to_string()));
    let told: Vec<_> = listed().map(|(path, why)| json!({ "path": raw(path), "why": why })).collect();
    let document = json!({
        "name": name, "files": files, "bytes_in": bytes_in, "bytes_stored": bytes_stored, "replaced": replaced,
        "left_out": told, "left_out_count": left_out.count(),
    });
    let (read, anew) = (size(*bytes_in), size(*bytes_stored));
    let name = escaped(name);
    let mut lines =
        vec![format!("{name}: {files} files, {read} ({bytes_in} bytes) in, {anew} ({bytes_stored} bytes) stored anew")];
    lines.extend(replaced.map(|digest| format!("replaced {digest}")));
    lines.extend(listed().map(|(path, why)| format!("left out: {}: {why}", shown(path))));
    let more = left_out.count() - listed().count();
    lines.extend((more > 0).then(|| format!("left out: {more} more")));
    output.print(&document, &lines.join("\n"));
    Ok(())
}

/// A path in JSON: a text, or its bytes where it is none.
fn raw(path: &Path) -> Value {
    path.to_str().map_or_else(|| json!(path.as_os_str().as_encoded_bytes()), |path| json!(path))
}

/// Writes what was imported under a name to a new folder.
pub fn export(store: &Store, name: &str, to: &Path, bits: SpecialBits, output: &Output) -> Result<(), Failure> {
    let bar = output.bytes(0);
    let report = transfer::export(store, name, to, bits, output.progress(&bar))?;
    bar.finish_and_clear();
    let Exported { files, dropped, left_behind, .. } = &report;
    tell_left_behind(left_behind.as_deref());
    let mut text = format!("{}: {files} files", escaped(name));
    if *dropped > 0 {
        text += &format!("\nleft out: the special bits of {dropped} modes; --special-bits sets them");
    }
    output.print(&json!({ "name": name, "files": files, "special_bits_left_out": dropped }), &text);
    Ok(())
}

/// Imports all repositories of the storage directory of a CNCF distribution registry.
pub fn import_distribution(store: &Store, from: &Path, output: &Output) -> Result<(), Failure> {
    let bar = output.bytes(0);
    let settings = RepositorySettings::new();
    let report = transfer::import_distribution(store, from, &settings, output.progress(&bar))?;
    bar.finish_and_clear();
    print_import(&report, output);
    complete(&report.skipped)
}

/// Pushes an image layout to a repository.
pub fn import_layout(store: &Store, from: &Path, name: &RepositoryName, output: &Output) -> Result<(), Failure> {
    let bar = output.bytes(0);
    let report = transfer::import_layout(store, from, name, &RepositorySettings::new(), output.progress(&bar))?;
    bar.finish_and_clear();
    print_import(&report, output);
    complete(&report.skipped)
}

fn print_import(report: &RegistryImport, output: &Output) {
    let RegistryImport { repositories, blobs, manifests, tags, bytes, uploads, skipped, .. } = report;
    let counts = |counts: &Counts| json!({ "new": counts.new, "existing": counts.existing });
    let document = json!({
        "repositories": repositories, "blobs": counts(blobs), "manifests": counts(manifests), "tags": counts(tags),
        "bytes_in": bytes, "uploads": uploads, "skipped": skips(skipped), "skipped_count": skipped.count(),
    });
    let line = |what: &str, counts: &Counts| format!("{what:<10} {} new, {} there before", counts.new, counts.existing);
    let mut lines = vec![format!("{repositories} repositories, {} read", size(*bytes))];
    lines.extend([line("blobs", blobs), line("manifests", manifests), line("tags", tags)]);
    lines.extend((*uploads > 0).then(|| format!("left out: {uploads} unfinished uploads")));
    lines.extend(skip_lines(skipped));
    output.print(&document, &lines.join("\n"));
}

/// Writes a repository as an image layout.
pub fn export_repository(store: &Store, name: &RepositoryName, to: &Path, output: &Output) -> Result<(), Failure> {
    let bar = output.bytes(0);
    let report = transfer::export_repository(&store.repository(name)?, to, output.progress(&bar))?;
    bar.finish_and_clear();
    print_export(&report, output);
    complete(&report.skipped)
}

/// Writes all blobs and repositories.
pub fn export_all(store: &Store, to: &Path, output: &Output) -> Result<(), Failure> {
    let bar = output.bytes(store.usage()?.live_bytes);
    let report = transfer::export_all(store, to, output.progress(&bar))?;
    bar.finish_and_clear();
    print_export(&report, output);
    complete(&report.skipped)
}

fn print_export(report: &RegistryExport, output: &Output) {
    let RegistryExport { repositories, manifests, tags, blobs, named, bytes, skipped, left_behind, .. } = report;
    tell_left_behind(left_behind.as_deref());
    let document = json!({
        "repositories": repositories, "manifests": manifests, "tags": tags, "blobs": blobs, "named": named,
        "bytes_out": bytes, "skipped": skips(skipped), "skipped_count": skipped.count(),
    });
    let written = size(*bytes);
    let counts = format!("{repositories} repositories, {manifests} manifests, {tags} tags, {blobs} blobs");
    let mut lines = vec![format!("{counts}, {named} named files, {written} written")];
    lines.extend(skip_lines(skipped));
    output.print(&document, &lines.join("\n"));
}

/// Fails where something was left out that should have been there.
fn complete(skipped: &Skips) -> Result<(), Failure> {
    if skipped.lost() == 0 { Ok(()) } else { Err(Failure::Incomplete(skipped.lost())) }
}

fn tell_left_behind(path: Option<&Path>) {
    if let Some(path) = path {
        tell(&format!("{} could not be removed", shown(path)));
    }
}

fn skips(skipped: &Skips) -> Value {
    let one = |one: &transfer::Skipped| {
        let why = one.reason.to_string();
        json!({ "repository": one.repository, "what": one.what, "why": why })
    };
    skipped.listed().iter().map(one).collect()
}

fn skip_lines(skipped: &Skips) -> Vec<String> {
    let listed = skipped.listed();
    let one = |one: &transfer::Skipped| {
        let place = if one.repository.is_empty() { String::new() } else { format!("{} ", one.repository) };
        escaped(&format!("skipped: {place}{}: {}", one.what, one.reason))
    };
    let mut lines: Vec<_> = listed.iter().map(one).collect();
    let more = skipped.count().saturating_sub(listed.len() as u64);
    lines.extend((more > 0).then(|| format!("skipped: {more} more")));
    lines
}
