// Frames and tracks of one episode. Scrubbing and marking happen here, without a word to the server until a mark is made.
// Frame f shows what step f - 1 led to, so a step's action, reward and cost are drawn below the frame after it.
const GUTTER = 86, LANE = 22, GAP = 7;
const COLOURS = { reward: "#3ecf8e", cost: "#ff6369", attention: "#f5a524", human: "#a78bfa", playhead: "#f4f4f5",
  axes: ["#60a5fa", "#f472b6", "#facc15"], text: "#9aa4b2", lane: "#1b212b", selection: "rgba(96, 165, 250, .22)" };
const FRAME_TIME = 100;

export default {
  // tracks: the episode as JSON, or "".
  props: { tracks: String, keys: Object },
  template: `
    <div class="player">
      <div class="stage">
        <canvas ref="frame" class="frame" width="320" height="320"></canvas>
        <canvas ref="path" class="path" width="320" height="320"></canvas>
        <div class="readout">
          <div class="clock"><b>{{ at }}</b> / {{ last }} <span>{{ seconds }} s</span></div>
          <table>
            <tr v-for="line in numbers"><th>{{ line.name }}</th><td v-for="v in line.values">{{ v }}</td></tr>
          </table>
          <div class="flags">
            <span v-if="levels.reward > 0" class="chip reward">reward {{ levels.reward }}</span>
            <span v-if="levels.cost > 0" class="chip cost">cost {{ levels.cost }}</span>
            <span v-if="levels.intervention" class="chip human">by hand</span>
            <span v-if="levels.reason" class="chip">{{ levels.reason }}</span>
          </div>
        </div>
      </div>
      <canvas ref="tracks" class="tracks" @pointerdown="press" @pointermove="move" @pointerup="release"
              @pointercancel="drag = null"></canvas>
    </div>`,
  data: () => ({ at: 0, anchor: null, drag: null }),
  computed: {
    // Frozen, so that Vue does not watch every number: drawing reads them all.
    episode() { return this.tracks ? Object.freeze(JSON.parse(this.tracks)) : null; },
    last() { return this.episode ? this.episode.frames - 1 : 0; },
    seconds() { return this.episode ? this.episode.time[this.at].toFixed(2) : "0.00"; },
    selection() {
      if (this.anchor === null) return null;
      return [Math.min(this.anchor, this.at), Math.max(this.anchor, this.at)];
    },
    levels() {
      const e = this.episode, step = this.at - 1;
      if (!e || step < 0) return {};
      return { reward: e.reward[step], cost: e.cost[step], intervention: e.intervention[step], reason: e.reasons[step] };
    },
    numbers() {
      const e = this.episode;
      if (!e) return [];
      const step = this.at - 1, show = (values, digits) => values.map((v) => v.toFixed(digits));
      const lines = [];
      if (e.pose.length) lines.push({ name: "position [m]", values: show(e.pose[this.at].slice(0, 3), 3) },
        { name: "rotation [rad]", values: show(e.pose[this.at].slice(3), 2) });
      for (const [name, values] of [["executed", e.executed], ["policy", e.policy], ["by hand", e.human]]) {
        if (step < 0) { lines.push({ name, values: ["–"] }); continue; }
        lines.push({ name, values: show(values[step].slice(0, 3), 2) });
        if (values[step].length > 3) lines.push({ name: "", values: show(values[step].slice(3, 6), 2) });
      }
      return lines;
    },
  },
  watch: {
    episode(now, before) {
      if (!now) { this.draw(); return; }
      if (!before || now.key !== before.key) {
        this.stop();
        this.at = 0;
        this.anchor = null;
        this.loadSheets();
      }
      this.drawTracks();
    },
    at() { this.draw(); },
    anchor() { this.draw(); },
  },
  methods: {
    // --- pictures -----------------------------------------------------------------------------------------------
    picture(url) {
      let image = this.cache.get(url);
      if (!image) {
        image = new Image();
        image.onload = () => this.drawFrame();
        image.src = url;
        this.cache.set(url, image);
        if (this.cache.size > 64) this.cache.delete(this.cache.keys().next().value);
      }
      return image;
    },
    loadSheets() {
      this.episode.sheets.forEach((url) => this.picture(url));
      this.episode.neighbours.forEach((url) => this.picture(url));
    },
    drawFrame() {
      const e = this.episode, canvas = this.$refs.frame;
      if (!canvas) return;
      const c = canvas.getContext("2d");
      if (!e || !e.sheets.length) { c.clearRect(0, 0, canvas.width, canvas.height); return; }
      const per = e.columns * e.rows, image = this.picture(e.sheets[Math.floor(this.at / per)]);
      if (!image.complete || !image.naturalWidth) return;
      const w = image.naturalWidth / e.columns, h = image.naturalHeight / e.rows, cell = this.at % per;
      canvas.height = Math.round((canvas.width * h) / w);
      c.imageSmoothingEnabled = w > 128;
      c.drawImage(image, (cell % e.columns) * w, Math.floor(cell / e.columns) * h, w, h, 0, 0, canvas.width, canvas.height);
      canvas.dataset.frame = this.at;
    },
    drawPath() {
      const e = this.episode, canvas = this.$refs.path, c = canvas.getContext("2d");
      c.clearRect(0, 0, canvas.width, canvas.height);
      if (!e || !e.pose.length) return;
      const xs = e.pose.map((p) => p[0]), ys = e.pose.map((p) => p[1]);
      const box = e.workspace || [[Math.min(...xs), Math.min(...ys)], [Math.max(...xs), Math.max(...ys)]];
      const size = Math.max(box[1][0] - box[0][0], box[1][1] - box[0][1], 0.02), scale = (canvas.width - 60) / size;
      const middle = [(box[0][0] + box[1][0]) / 2, (box[0][1] + box[1][1]) / 2];
      // From above, with the arm's x upwards and y to the left.
      const place = (x, y) => [canvas.width / 2 - (y - middle[1]) * scale, canvas.height / 2 - (x - middle[0]) * scale];
      c.strokeStyle = "#3a4454";
      const [x0, y0] = place(box[1][0], box[1][1]), [x1, y1] = place(box[0][0], box[0][1]);
      c.strokeRect(x0, y0, x1 - x0, y1 - y0);
      c.lineWidth = 3;
      for (let f = 1; f < e.frames; f++) {
        c.strokeStyle = e.cost[f - 1] > 0 ? COLOURS.cost : e.reward[f - 1] > 0 ? COLOURS.reward : f <= this.at ? "#60a5fa" : "#33425c";
        c.beginPath();
        c.moveTo(...place(xs[f - 1], ys[f - 1]));
        c.lineTo(...place(xs[f], ys[f]));
        c.stroke();
      }
      c.fillStyle = COLOURS.playhead;
      c.beginPath();
      c.arc(...place(xs[this.at], ys[this.at]), 6, 0, 7);
      c.fill();
      c.fillStyle = COLOURS.text;
      c.font = "13px system-ui";
      c.fillText("tool from above · x up, y left", 10, canvas.height - 10);
    },
    // --- tracks -------------------------------------------------------------------------------------------------
    lanes() {
      const e = this.episode, step = (rows, i) => rows.map((row) => row[i]);
      const curves = (rows, from, first) => [0, 1, 2].filter((i) => rows.length && rows[0].length > from + i)
        .map((i) => ({ values: step(rows, from + i), first }));
      const lanes = [{ name: "reward", kind: "reward", height: LANE }, { name: "cost", kind: "cost", height: LANE },
        { name: "hand · limit", kind: "events", height: 12 }];
      if (e.attention.length) lanes.push({ name: "attention", kind: "attention", height: 34 });
      const left = this.height - lanes.reduce((sum, lane) => sum + lane.height + GAP, GAP);
      const plots = [
        { name: "position", curves: curves(e.pose, 0, 0) }, { name: "rotation", curves: curves(e.pose, 3, 0) },
        { name: "action", note: "translation", curves: curves(e.executed, 0, 1), wished: curves(e.wished, 0, 1), range: [-1, 1] },
        { name: "action", note: "rotation", curves: curves(e.executed, 3, 1), wished: curves(e.wished, 3, 1), range: [-1, 1] },
      ].filter((plot) => plot.curves.length);
      plots.forEach((plot) => lanes.push({ ...plot, kind: "plot", height: Math.max(30, left / plots.length - GAP) }));
      let top = GAP;
      return lanes.map((lane) => { const placed = { ...lane, top }; top += lane.height + GAP; return placed; });
    },
    x(frame) { return GUTTER + ((frame + 0.5) / this.episode.frames) * (this.width - GUTTER - 8); },
    frameAt(x) {
      const frame = Math.floor(((x - GUTTER) / (this.width - GUTTER - 8)) * this.episode.frames);
      return Math.max(0, Math.min(this.last, frame));
    },
    cells(c, lane, values, colour, inset = 0) {
      const most = Math.max(1, ...values);
      values.forEach((value, step) => {
        if (value <= 0) return;
        const height = (lane.height - inset) * (0.35 + (0.65 * value) / most);
        c.fillStyle = colour;
        c.fillRect(this.x(step + 0.5), lane.top + lane.height - height, this.x(step + 1.5) - this.x(step + 0.5) + 0.5, height);
      });
    },
    drawTracks() {
      const canvas = this.$refs.tracks;
      if (!canvas) return;
      const ratio = window.devicePixelRatio || 1;
      this.width = canvas.clientWidth;
      this.height = canvas.clientHeight;
      canvas.width = this.still.width = this.width * ratio;
      canvas.height = this.still.height = this.height * ratio;
      const c = this.still.getContext("2d"), e = this.episode;
      c.scale(ratio, ratio);
      if (!e) { this.draw(); return; }
      this.placed = this.lanes();
      c.font = "12px system-ui";
      c.textBaseline = "middle";
      for (const lane of this.placed) {
        c.fillStyle = COLOURS.lane;
        c.fillRect(this.x(-0.5), lane.top, this.x(e.frames - 0.5) - this.x(-0.5), lane.height);
        c.fillStyle = COLOURS.text;
        const lines = [lane.name, ...(lane.note ? [lane.note] : [])], middle = lane.top + lane.height / 2;
        const above = middle - 7.5 * (lines.length - (lane.curves ? 0 : 1));
        lines.forEach((line, i) => c.fillText(line, 4, above + 15 * i));
        // Which colour is which axis.
        (lane.curves || []).forEach((_, axis) => {
          c.fillStyle = COLOURS.axes[axis];
          c.fillText("xyz"[axis], 4 + 14 * axis, above + 15 * lines.length);
        });
        this["lane_" + lane.kind](c, lane, e);
      }
      this.draw();
    },
    lane_reward(c, lane, e) { this.lane_level(c, lane, e, "reward"); },
    lane_cost(c, lane, e) {
      e.suggestion.forEach(([first, end]) => {
        const x = this.x(first + 0.5), width = this.x(end + 0.5) - x;
        c.save();
        c.beginPath();
        c.rect(x, lane.top, width, lane.height);
        c.clip();
        c.strokeStyle = "rgba(255, 99, 105, .55)";
        for (let k = -lane.height; k < width; k += 6) {
          c.beginPath();
          c.moveTo(x + k, lane.top + lane.height);
          c.lineTo(x + k + lane.height, lane.top);
          c.stroke();
        }
        c.restore();
      });
      this.lane_level(c, lane, e, "cost");
    },
    lane_level(c, lane, e, kind) {
      this.cells(c, lane, e[kind], COLOURS[kind]);
      // What was recorded stays visible as a line below, where a label changed it.
      c.fillStyle = COLOURS.playhead;
      e["recorded_" + kind].forEach((value, step) => {
        if (value !== e[kind][step]) c.fillRect(this.x(step + 0.5), lane.top + lane.height - 2, this.x(step + 1.5) - this.x(step + 0.5), 2);
      });
    },
    lane_events(c, lane, e) {
      this.cells(c, lane, e.intervention.map(Number), COLOURS.human, 6);
      c.fillStyle = COLOURS.attention;
      e.reasons.forEach((reason, step) => { if (reason) c.fillRect(this.x(step + 1) - 1.5, lane.top, 3, lane.height); });
    },
    lane_attention(c, lane, e) { this.cells(c, lane, e.attention.map((v) => v / Math.max(...e.attention, 1e-9)), COLOURS.attention); },
    lane_plot(c, lane) {
      for (const group of [lane.wished || [], lane.curves]) {
        group.forEach((curve, axis) => {
          // Curves of one lane share a scale; positions are shown from their means, else only the largest would move.
          const mean = lane.range ? 0 : curve.values.reduce((a, b) => a + b, 0) / curve.values.length;
          const span = lane.range ? 1 : Math.max(0.01, ...lane.curves.map((k) => {
            const m = k.values.reduce((a, b) => a + b, 0) / k.values.length;
            return Math.max(...k.values.map((v) => Math.abs(v - m)));
          }));
          c.strokeStyle = COLOURS.axes[axis];
          c.globalAlpha = group === lane.curves ? 1 : 0.5;
          c.lineWidth = group === lane.curves ? 1.6 : 1;
          c.setLineDash(group === lane.curves ? [] : [2, 3]);
          c.beginPath();
          curve.values.forEach((value, i) => {
            const y = lane.top + lane.height / 2 - ((value - mean) / span) * (lane.height / 2 - 3);
            c[i ? "lineTo" : "moveTo"](this.x(i + curve.first), y);
          });
          c.stroke();
          c.setLineDash([]);
          c.globalAlpha = 1;
        });
      }
    },
    draw() {
      const canvas = this.$refs.tracks;
      if (!canvas || !this.width) return;
      const c = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
      c.setTransform(1, 0, 0, 1, 0, 0);
      c.clearRect(0, 0, canvas.width, canvas.height);
      c.drawImage(this.still, 0, 0);
      c.scale(ratio, ratio);
      if (this.episode) {
        if (this.selection) {
          const [first, end] = this.selection;
          c.fillStyle = COLOURS.selection;
          c.fillRect(this.x(first - 0.5), 0, this.x(end + 0.5) - this.x(first - 0.5), this.height);
        }
        if (this.drag && this.drag.lane) {
          const [first, end] = this.dragged();
          const lane = this.placed.find((placed) => placed.kind === this.drag.lane);
          c.fillStyle = this.drag.value ? COLOURS[this.drag.lane] : "#000";
          c.globalAlpha = 0.7;
          c.fillRect(this.x(first + 0.5), lane.top, this.x(end + 0.5) - this.x(first + 0.5), lane.height);
          c.globalAlpha = 1;
        }
        c.fillStyle = COLOURS.playhead;
        c.fillRect(this.x(this.at) - 1, 0, 2, this.height);
      }
      this.drawFrame();
      this.drawPath();
    },
    // --- pointer ------------------------------------------------------------------------------------------------
    press(event) {
      if (!this.episode || event.button) return;
      const frame = this.frameAt(event.offsetX);
      const lane = this.placed.find((placed) => event.offsetY >= placed.top && event.offsetY < placed.top + placed.height);
      this.stop();
      event.target.setPointerCapture(event.pointerId);
      if (lane && (lane.kind === "reward" || lane.kind === "cost")) {
        const step = Math.max(0, frame - 1);
        this.drag = { lane: lane.kind, from: step, to: step, value: this.episode[lane.kind][step] > 0 ? 0 : 1 };
      } else {
        this.drag = { lane: null };
        this.anchor = event.shiftKey ? (this.anchor ?? this.at) : null;
      }
      this.at = frame;
      this.draw();
    },
    move(event) {
      if (!this.drag) return;
      this.at = this.frameAt(event.offsetX);
      if (this.drag.lane) this.drag.to = Math.max(0, this.at - 1);
      this.draw();
    },
    release() {
      if (this.drag && this.drag.lane) {
        const [first, end] = this.dragged();
        this.mark(this.drag.lane, first, end, this.drag.value);
      }
      this.drag = null;
      this.draw();
    },
    dragged() { return [Math.min(this.drag.from, this.drag.to), Math.max(this.drag.from, this.drag.to) + 1]; },
    mark(kind, first, end, value) {
      // Shown at once; the server's answer replaces it.
      this.episode[kind].fill(value, first, end);
      this.drawTracks();
      this.$emit("mark", { key: this.episode.key, kind, first, end, value });
    },
    // --- keys ---------------------------------------------------------------------------------------------------
    press_key(event) {
      const typing = ["INPUT", "TEXTAREA"].includes(document.activeElement?.tagName);
      if (typing) {
        if (event.key === "Escape") document.activeElement.blur();
        return;
      }
      if (event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
      const prefix = event.ctrlKey ? "Ctrl+" : event.shiftKey && event.key !== "?" ? "Shift+" : "";
      const command = this.keys[prefix + event.key];
      if (!command) return;
      event.preventDefault();
      this.run(command);
    },
    run(command) {
      const here = { forward: 1, back: -1, select_forward: 1, select_back: -1 };
      if (command in here) {
        this.stop();
        if (command.startsWith("select")) this.anchor ??= this.at;
        else this.anchor = null;
        this.at = Math.max(0, Math.min(this.last, this.at + here[command]));
      } else if (command === "first" || command === "last") this.at = command === "first" ? 0 : this.last;
      else if (command === "play") this.play();
      else if (command === "deselect") this.anchor = null;
      else if (command === "reward" || command === "cost") this.toggle(command);
      else if (command === "note" || command === "search") {
        // At once, or what is typed next would be taken for commands.
        document.querySelector(command === "note" ? ".note textarea" : ".search input").focus();
      } else this.$emit("command", { command, step: Math.max(0, this.at - 1), key: this.episode ? this.episode.key : null });
    },
    toggle(kind) {
      if (!this.episode) return;
      const [from, to] = this.selection || [this.at, this.at];
      const first = Math.max(0, from - 1), end = Math.max(1, to);
      const on = this.episode[kind].slice(first, end).every((value) => value > 0);
      this.anchor = null;
      this.mark(kind, first, end, on ? 0 : 1);
    },
    play() {
      if (this.timer) { this.stop(); return; }
      if (this.at === this.last) this.at = 0;
      this.timer = setInterval(() => (this.at < this.last ? this.at++ : this.stop()), FRAME_TIME);
    },
    stop() {
      clearInterval(this.timer);
      this.timer = null;
    },
  },
  created() {
    this.cache = new Map();
    this.still = document.createElement("canvas");
  },
  mounted() {
    document.addEventListener("keydown", this.press_key);
    this.observer = new ResizeObserver(() => this.drawTracks());
    this.observer.observe(this.$refs.tracks);
    if (this.episode) { this.loadSheets(); this.drawTracks(); }
  },
  unmounted() {
    this.stop();
    this.observer.disconnect();
    document.removeEventListener("keydown", this.press_key);
  },
};
