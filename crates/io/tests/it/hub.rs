//! Downloads, from a small server of our own.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rhumb_io::hub::{HubError, HubOptions, pull};

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves the files of `org/name` on a free port and notes the paths that were asked for.
fn serve(files: &[(&'static str, &'static str)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let files: HashMap<_, _> = files.iter().copied().collect();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut first = String::new();
            reader.read_line(&mut first).unwrap();
            let mut from = 0;
            let mut only_first = false;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
                    break;
                }
                if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                    from = range.split('-').next().unwrap().parse().unwrap();
                    only_first = range.trim() == "0-0";
                }
            }
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            log.lock().unwrap().push(path.clone());
            let answer = if path == "/api/models/org/name/revision/main" {
                let names: Vec<_> = files.keys().map(|f| format!("{{\"rfilename\":\"{f}\"}}")).collect();
                let body = format!("{{\"sha\":\"{SHA}\",\"siblings\":[{}]}}", names.join(","));
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                )
            } else if let Some(body) =
                path.strip_prefix(&format!("/org/name/resolve/{SHA}/")).and_then(|f| files.get(f))
            {
                let part = if only_first { &body[..1] } else { &body[from..] };
                format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\
                     ETag: \"{:x}\"\r\nX-Repo-Commit: {SHA}\r\nConnection: close\r\n\r\n{part}",
                    part.len(),
                    from + part.len() - 1,
                    body.len(),
                    body.len() * 31 + usize::from(body.as_bytes()[0]),
                )
            } else {
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (endpoint, asked)
}

#[test]
fn a_model_is_downloaded_once_and_only_the_files_it_needs() {
    let (endpoint, asked) = serve(&[
        ("config.json", "{\"model_type\":\"llama\"}"),
        ("tokenizer.json", "[1, 2, 3]"),
        ("model.safetensors", "the weights of the model"),
        ("pytorch_model.bin", "never asked for"),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let options =
        HubOptions { endpoint: Some(endpoint), cache: Some(dir.path().into()), ..HubOptions::default() };
    let mut seen = Vec::new();
    let folder =
        pull("org/name", &options, &mut |p| seen.push((p.file.to_owned(), p.done, p.total))).unwrap();
    assert_eq!(fs::read_to_string(folder.join("model.safetensors")).unwrap(), "the weights of the model");
    assert_eq!(fs::read_to_string(folder.join("tokenizer.json")).unwrap(), "[1, 2, 3]");
    assert_eq!(seen.last().unwrap(), &("model.safetensors".to_owned(), 24, 24));
    assert!(asked.lock().unwrap().iter().all(|p| !p.contains("pytorch")));

    asked.lock().unwrap().clear();
    assert_eq!(pull("org/name", &options, &mut |_| ()).unwrap(), folder);
    assert_eq!(*asked.lock().unwrap(), ["/api/models/org/name/revision/main"]);
}

#[test]
fn one_gguf_file_is_downloaded_by_its_name() {
    let (endpoint, _) = serve(&[("w.gguf", "GGUF and so on")]);
    let dir = tempfile::tempdir().unwrap();
    let options =
        HubOptions { endpoint: Some(endpoint), cache: Some(dir.path().into()), ..HubOptions::default() };
    let file = pull("org/name/w.gguf", &options, &mut |_| ()).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), "GGUF and so on");
    let error = pull("org/name", &options, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("org/name/w.gguf"), "{error}");
}

#[test]
fn an_unknown_model_and_a_dead_server_are_told_apart() {
    let (endpoint, _) = serve(&[]);
    let dir = tempfile::tempdir().unwrap();
    let mut options =
        HubOptions { endpoint: Some(endpoint), cache: Some(dir.path().into()), ..HubOptions::default() };
    let error = pull("org/other", &options, &mut |_| ()).unwrap_err();
    assert!(matches!(error, HubError::Refused { status: 404, .. }), "{error}");
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    options.endpoint = Some(format!("http://{unused}"));
    let error = pull("org/name", &options, &mut |_| ()).unwrap_err();
    assert!(matches!(error, HubError::Download { .. }), "{error}");
    assert!(error.to_string().contains("check the network"), "{error}");
}
