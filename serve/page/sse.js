// Server-sent events of a response to a POST, which EventSource cannot make.

/** Yields {name, data} of each event; `data` is parsed JSON. */
export async function* readEvents(body) {
  let rest = "";
  for await (const piece of chunks(body.pipeThrough(new TextDecoderStream()))) {
    const blocks = (rest + piece).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const event = parse(block);
      if (event) yield event;
    }
  }
}

async function* chunks(stream) {
  const reader = stream.getReader(); // not every browser can iterate over a stream
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
  } finally {
    reader.cancel().catch(() => {}); // a stream that was aborted is cancelled already
  }
}

function parse(block) {
  const lines = block.split(/\r?\n/).map((line) => line.split(/:\s?(.*)/s));
  const values = (field) => lines.filter(([name]) => name === field).map(([, value]) => value);
  const data = values("data").join("\n");
  return data ? { name: values("event")[0] ?? "message", data: JSON.parse(data) } : null; // no data: a comment
}
