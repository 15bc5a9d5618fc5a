//! Official releases and archives from elsewhere.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use engine_provisioner::{
    Endpoints, EngineOrigin, EngineRequest, InstallRequest, Registry, Source, Variant, known_profile,
    latest_release, resolve,
};
use orch_core::ExitCode;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::local_server::{LocalServer, Reply};
use crate::{SCRIPT, engine_folders, install, temp_home};

pub(crate) fn zip_with(name: &str, content: &str) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    // Not executable, as archives made on other systems are.
    writer.start_file(name, zip::write::SimpleFileOptions::default().unix_permissions(0o644)).unwrap();
    writer.write_all(content.as_bytes()).unwrap();
    writer.finish().unwrap().into_inner()
}

fn tar_gz_with_links() -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(SCRIPT.len() as u64);
    builder.append_data(&mut header, "llama-b7/llama-server", SCRIPT.as_bytes()).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "llama-b7/libllama.so", "libllama.so.0").unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A server with release `b5123` in two variants; the plain one's archive is `archive`.
fn release_server(archive: &[u8], digest: Option<&str>) -> LocalServer {
    let server = LocalServer::start();
    let plain = format!("llama-b5123-bin-{}.zip", Variant::host());
    let release = json!({
        "tag_name": "b5123",
        "published_at": "2026-01-01T00:00:00Z",
        "assets": [
            {"name": plain, "browser_download_url": server.url("/plain.zip"), "digest": digest},
            {"name": "llama-b5123-bin-win-cpu-x64.zip", "browser_download_url": server.url("/win.zip")},
        ],
    });
    let release = Reply::Bytes(release.to_string().into_bytes());
    server.serve("/repos/ggml-org/llama.cpp/releases/latest", release.clone());
    server.serve("/repos/ggml-org/llama.cpp/releases/tags/b5123", release);
    server.serve("/plain.zip", Reply::Bytes(archive.to_vec()));
    server
}

fn request(server: &LocalServer) -> InstallRequest {
    InstallRequest {
        endpoints: Endpoints { github_api: server.url("") },
        ..InstallRequest::new(Source::Github)
    }
}

#[tokio::test]
async fn the_newest_release_is_installed_probed_and_found_again() {
    let (_folder, home) = temp_home();
    let archive = zip_with("build/bin/llama-server", SCRIPT);
    let server = release_server(&archive, Some(&format!("sha256:{}", sha256(&archive))));
    let engine = install(&home, request(&server)).await.unwrap();
    assert_eq!((engine.version.as_str(), engine.source.as_str()), ("b5123", "github"));
    assert_eq!(engine.sha256, Some(sha256(&archive)));
    assert_eq!(engine.variant, Variant::host().to_string());
    assert!(!engine.is_default && engine.size_bytes.0 > 0);

    let found = resolve(&EngineRequest::default(), &home, None, None).unwrap();
    assert_eq!((found.executable.clone(), found.origin), (engine.executable, EngineOrigin::Newest));
    let profile = known_profile(&home, &found.executable).expect("the installation has probed it");
    assert!(profile.flags.contains("--port") && profile.knows_flag("-m"));
    assert_eq!((profile.version.as_deref(), profile.devices.len()), (Some("b5123"), 1));
    assert_eq!(engine_folders(&home), [engine.id.to_string()]);
}

#[tokio::test]
async fn what_is_installed_is_not_downloaded_again() {
    let (_folder, home) = temp_home();
    let server = release_server(&zip_with("llama-server", SCRIPT), None);
    let first = install(&home, request(&server)).await.unwrap();
    let after_first = server.requests().len();
    let again = InstallRequest { set_default: true, version: Some("b5123".to_owned()), ..request(&server) };
    let second = install(&home, again).await.unwrap();
    assert_eq!((second.id, second.is_default), (first.id, true));
    assert_eq!(server.requests().len(), after_first, "an exact version needs no question");
    let latest = InstallRequest { version: Some("latest".to_owned()), ..request(&server) };
    assert_eq!(install(&home, latest).await.unwrap().id, first.id);
    assert_eq!(server.requests().len(), after_first + 1, "the newest needs one");
}

#[tokio::test]
async fn a_wrong_checksum_installs_nothing() {
    let archive = zip_with("llama-server", SCRIPT);
    let wrong = "0".repeat(64);
    let from_release = release_server(&archive, Some(&format!("sha256:{wrong}")));
    let from_user = release_server(&archive, None);
    let by_user = InstallRequest { sha256: Some(wrong), ..request(&from_user) };
    for request in [request(&from_release), by_user] {
        let (_folder, home) = temp_home();
        let failure = install(&home, request).await.unwrap_err();
        assert_eq!(failure.exit, ExitCode::EngineInvalid, "{failure}");
        assert!(engine_folders(&home).is_empty());
        assert!(Registry::load(&home).unwrap().list().is_empty());
    }
}

#[tokio::test]
async fn an_archive_without_a_working_engine_installs_nothing() {
    let broken = "#!/bin/sh\necho 'libggml.so: cannot open shared object file' >&2\nexit 127\n";
    let archives = [
        zip_with("README", "no engine"),
        zip_with("llama-server", broken),
        zip_with("../llama-server", SCRIPT),
    ];
    for archive in archives {
        let (_folder, home) = temp_home();
        let failure = install(&home, request(&release_server(&archive, None))).await.unwrap_err();
        assert_eq!(failure.exit, ExitCode::EngineInvalid, "{failure}");
        assert!(engine_folders(&home).is_empty());
    }
}

#[tokio::test]
async fn releases_and_variants_that_do_not_exist_are_not_found() {
    let (_folder, home) = temp_home();
    let server = release_server(b"", None);
    let version = InstallRequest { version: Some("b1".to_owned()), ..request(&server) };
    let variant = InstallRequest { variant: Some("sycl".to_owned()), ..request(&server) };
    for request in [version, variant] {
        assert_eq!(install(&home, request).await.unwrap_err().exit, ExitCode::EngineNotFound);
    }
}

#[tokio::test]
async fn the_token_goes_to_the_release_server_and_not_to_the_download() {
    let (_folder, home) = temp_home();
    let server = release_server(&zip_with("llama-server", SCRIPT), None);
    let with_token = InstallRequest { github_token: Some("ghp_secret".to_owned()), ..request(&server) };
    assert!(!format!("{with_token:?}").contains("ghp_secret"));
    install(&home, with_token).await.unwrap();
    for request in server.requests() {
        let is_question = request.starts_with("GET /repos/");
        assert_eq!(request.contains("ghp_secret"), is_question, "{request}");
    }
}

#[tokio::test]
async fn a_refusal_or_an_outage_of_the_server_is_a_failed_download_with_a_way_out() {
    let (_folder, home) = temp_home();
    let server = release_server(b"", None);
    for status in [403, 429, 500, 503] {
        server.serve("/repos/ggml-org/llama.cpp/releases/latest", Reply::Status(status));
        let failure = install(&home, request(&server)).await.unwrap_err();
        assert_eq!(failure.exit, ExitCode::DownloadFailed, "{failure}");
        assert!(failure.hint.is_some());
    }
    server.serve("/repos/ggml-org/llama.cpp/releases/latest", Reply::Bytes(b"<html>".to_vec()));
    assert_eq!(install(&home, request(&server)).await.unwrap_err().exit, ExitCode::DownloadFailed);
}

#[tokio::test]
async fn a_download_that_breaks_off_installs_nothing() {
    let (_folder, home) = temp_home();
    let archive = zip_with("llama-server", SCRIPT);
    let server = release_server(&archive, None);
    server.serve("/plain.zip", Reply::Cut(archive));
    let failure = install(&home, request(&server)).await.unwrap_err();
    assert_eq!(failure.exit, ExitCode::DownloadFailed, "{failure}");
    assert!(engine_folders(&home).is_empty());
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_fails_fast() {
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = release_server(b"", None);
    silent.serve("/repos/ggml-org/llama.cpp/releases/latest", Reply::Silence);
    // The last one: an address reserved for documentation, which nobody answers for.
    for base in [format!("http://{refusing}"), silent.url(""), "http://192.0.2.1".to_owned()] {
        let started = Instant::now();
        let failure = latest_release(&Endpoints { github_api: base.clone() }, None).await.unwrap_err();
        assert_eq!(failure.exit, ExitCode::DownloadFailed, "{base}: {failure}");
        assert!(failure.hint.unwrap().contains("pypi"), "{base}");
        assert!(started.elapsed() < Duration::from_millis(6500), "{base}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn an_archive_from_elsewhere_is_installed_with_the_version_it_says() {
    let (_folder, home) = temp_home();
    let server = LocalServer::start();
    let archive = tar_gz_with_links();
    server.serve("/engine.tar.gz", Reply::Bytes(archive.clone()));
    let url = Source::Url(server.url("/engine.tar.gz"));
    let checked =
        InstallRequest { sha256: Some(sha256(&archive).to_uppercase()), ..InstallRequest::new(url) };
    let engine = install(&home, checked).await.unwrap();
    assert_eq!((engine.version.as_str(), engine.source.as_str()), ("b5123", "url"));
    let link = engine.executable.with_file_name("libllama.so");
    assert_eq!(fs::read_link(link).unwrap().to_str(), Some("libllama.so.0"));
}

#[tokio::test]
async fn an_unencrypted_download_from_another_machine_needs_a_checksum() {
    let (_folder, home) = temp_home();
    let url = Source::Url("http://example.test/engine.zip".to_owned());
    let failure = install(&home, InstallRequest::new(url)).await.unwrap_err();
    assert_eq!(failure.exit, ExitCode::Usage);
    for address in ["ftp://example.test/x", "engine.zip", "file:///etc/passwd"] {
        let request = InstallRequest::new(Source::Url(address.to_owned()));
        assert_eq!(install(&home, request).await.unwrap_err().exit, ExitCode::Usage, "{address}");
    }
    assert!(!home.root().exists());
}

#[tokio::test]
async fn two_installations_at_once_both_succeed() {
    let (_folder, home) = temp_home();
    let server = LocalServer::start();
    server.serve("/a.zip", Reply::Bytes(zip_with("llama-server", SCRIPT)));
    server.serve("/b.zip", Reply::Bytes(zip_with("bin/llama-server", SCRIPT)));
    let request = |path: &str| InstallRequest::new(Source::Url(server.url(path)));
    let (a, b) = tokio::join!(install(&home, request("/a.zip")), install(&home, request("/b.zip")));
    let mut expected = [a.unwrap().id.to_string(), b.unwrap().id.to_string()];
    let mut found = engine_folders(&home);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(Registry::load(&home).unwrap().list().len(), 2);
}
