//! A server for the tests of the hub: pages by path, ranges, cuts; ends with the test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest, Sha256};

/// What a path answers.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    ranges: bool,
    cut_after: usize,
    cuts: usize,
    then_status: Option<u16>,
}

impl Page {
    pub(crate) fn new(body: &[u8]) -> Page {
        let body = body.to_vec();
        Page { status: 200, headers: Vec::new(), body, ranges: true, cut_after: 0, cuts: 0, then_status: None }
    }

    pub(crate) fn status(status: u16) -> Page {
        Page { status, ..Page::new(b"") }
    }

    pub(crate) fn redirect(to: &str) -> Page {
        Page::status(307).header("location", to)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Page {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn without_ranges(self) -> Page {
        Page { ranges: false, ..self }
    }

    /// The first `cuts` downloads end after so many bytes.
    pub(crate) fn cut_after(self, bytes: usize, cuts: usize) -> Page {
        Page { cut_after: bytes, cuts, ..self }
    }

    /// After the cuts, downloads have this status.
    pub(crate) fn then_status(self, status: u16) -> Page {
        Page { then_status: Some(status), ..self }
    }
}

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorized: bool,
}

#[derive(Default)]
struct Shared {
    pages: Mutex<HashMap<String, Page>>,
    requests: Mutex<Vec<Request>>,
    ended: AtomicBool,
}

pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("is bound");
        let shared = Arc::new(Shared::default());
        let served = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if served.ended.load(Ordering::SeqCst) {
                    return;
                }
                // A client that goes away ends its own connection and nothing else.
                let _ = answer(&served, stream);
            }
        });
        Server { address, shared, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn put(&self, path: &str, page: Page) {
        self.shared.pages.lock().expect("no test panicked").insert(path.into(), page);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("no test panicked").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request a connection.
fn answer(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }
    let range = headers.get("range").cloned();
    let authorized = headers.contains_key("authorization");
    let asked = Request { method: method.clone(), path: path.clone(), range: range.clone(), authorized };
    shared.requests.lock().expect("no test panicked").push(asked);
    let page = {
        let mut pages = shared.pages.lock().expect("no test panicked");
        let page =
            pages.get(&path).cloned().unwrap_or_else(|| Page::status(404).header("x-error-code", "EntryNotFound"));
        if method == "GET"
            && let Some(stored) = pages.get_mut(&path)
        {
            stored.cuts = stored.cuts.saturating_sub(1);
        }
        page
    };
    write_answer(reader.into_inner(), &page, method == "GET", range.as_deref())
}

fn write_answer(mut stream: TcpStream, page: &Page, get: bool, range: Option<&str>) -> std::io::Result<()> {
    let mut status = page.status;
    if get && page.cuts == 0 {
        status = page.then_status.unwrap_or(status);
    }
    let start =
        range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()).filter(|_| page.ranges);
    let start = start.filter(|_| status == 200).unwrap_or(0);
    let body = if status == 200 || status == 307 { &page.body[start..] } else { &[] };
    let mut head = format!(
        "HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {}\r\n",
        if start > 0 { 206 } else { status },
        body.len()
    );
    if start > 0 {
        head += &format!("content-range: bytes {start}-{}/{}\r\n", page.body.len() - 1, page.body.len());
    }
    for (name, value) in &page.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    if get {
        let cut = if page.cuts > 0 { page.cut_after.min(body.len()) } else { body.len() };
        stream.write_all(&body[..cut])?;
    }
    stream.flush()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
