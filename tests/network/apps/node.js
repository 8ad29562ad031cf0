// node.js serve HOST | use HOST: an HTTP server, and a hundred requests to it of which one is large.
const http = require("http");
const [, , what, host] = process.argv;
const port = 8002;

if (what === "serve") {
  const answer = (request, response) => {
    let length = 0;
    request.on("data", (part) => (length += part.length));
    request.on("end", () => response.end(`${request.method} ${length}`));
  };
  http.createServer(answer).listen(port, host);
} else {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 10 });
  const ask = (body) =>
    new Promise((done, failed) => {
      const request = http.request({ host, port, agent, method: "POST" }, (response) => {
        let text = "";
        response.on("data", (part) => (text += part));
        response.on("end", () => done([response.statusCode, text]));
      });
      request.on("error", failed);
      request.end(body);
    });
  const small = Array.from({ length: 100 }, () => ask("x"));
  Promise.all([...small, ask(Buffer.alloc(5000000))]).then((all) => {
    const bytes = all[100][1].split(" ")[1];
    console.log(`${all[0][0]} ${all.slice(0, 100).filter((one) => one[1] === "POST 1").length} requests ${bytes} bytes`);
    agent.destroy();
  });
}
