/** Server-sent events (WHATWG HTML, section 9.2), read from the body of a POST, which EventSource cannot send. */

/** The data of each event in a stream of bytes, as objects; comments and the names of events are passed over. */
export async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let [rest, data] = ["", []];
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(5));
        else if (line === "" && data.length) {
          yield JSON.parse(data.join("\n"));
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // a reader that leaves early frees the server's rows
  }
}
