//! Importing and exporting folders and image layouts.

use std::path::Path;

use serde_json::json;
use strongroom::Store;
use strongroom::transfer::{self, Existing, Exported, Imported, SpecialBits};

use crate::commands::Failure;
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
fn raw(path: &Path) -> serde_json::Value {
    path.to_str().map_or_else(|| json!(path.as_os_str().as_encoded_bytes()), |path| json!(path))
}

/// Writes what was imported under a name to a new folder.
pub fn export(store: &Store, name: &str, to: &Path, bits: SpecialBits, output: &Output) -> Result<(), Failure> {
    let bar = output.bytes(0);
    let report = transfer::export(store, name, to, bits, output.progress(&bar))?;
    bar.finish_and_clear();
    let Exported { files, dropped, left_behind, .. } = &report;
    if let Some(path) = left_behind {
        tell(&format!("{} could not be removed", shown(path)));
    }
    let mut text = format!("{}: {files} files", escaped(name));
    if *dropped > 0 {
        text += &format!("\nleft out: the special bits of {dropped} modes; --special-bits sets them");
    }
    output.print(&json!({ "name": name, "files": files, "special_bits_left_out": dropped }), &text);
    Ok(())
}
