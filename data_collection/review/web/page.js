// The page around list, player and scatter. What it shows is the server's state, of which each message holds what changed.
import { createApp } from "./vue.js";
import EpisodeList from "./episode_list.js";
import Scatter from "./scatter.js";
import Timeline from "./timeline.js";

const RETRY = 1000, NOTICE = 5000;

const connected = () => new WebSocket(`ws://${location.host}/live`);
// The server makes up the list while this page is drawn for the first time.
let socket = connected();

const Page = {
  components: { EpisodeList, Scatter, Timeline },
  template: `
    <header class="top">
      <div class="title">Review</div>
      <div class="folder">{{ s.folder }}</div>
      <div class="progress"><div :style="{ width: 100 * s.progress + '%' }"></div></div>
      <div class="counts">{{ s.counts }}</div>
      <div class="who">signed {{ s.who }}</div>
      <button class="helper" title="all keys" @click="$refs.help.showModal()">?</button>
    </header>
    <main class="board">
      <section class="left">
        <label class="search"><input type="search" placeholder="search name, task or note   /" v-model="search"
          @input="send('view', { search })"></label>
        <div class="choices">
          <select v-for="kind in ['filter', 'order']" :title="kind" :value="s[kind]"
                  @change="send('view', { [kind]: $event.target.value }); $event.target.blur()">
            <option v-for="name in s.choices[kind]">{{ name }}</option>
          </select>
        </div>
        <EpisodeList :rows="s.rows" :selected="s.selected" @choose="choose"/>
      </section>
      <section class="middle">
        <div class="episode" :class="s.verdict">{{ s.name }}</div>
        <Timeline :tracks="s.tracks" :keys="s.keys" @mark="send('mark', $event)" @command="command"/>
      </section>
      <section class="right">
        <div class="caption">reward and cost of every episode</div>
        <Scatter :rows="s.every" :selected="s.selected" @choose="choose"/>
        <div class="verdicts">
          <button v-for="name in ['accept', 'reject', 'undo']" :class="name" :title="'key ' + name[0]"
                  @click="send('command', { command: name, step: 0, key: s.selected }); $event.target.blur()">
            {{ name[0].toUpperCase() + name.slice(1) }} <kbd>{{ name[0] }}</kbd></button>
        </div>
        <div class="note"><textarea rows="3" placeholder="note   n" v-model="draft" @blur="saveNote"></textarea></div>
        <div class="caption">history</div>
        <div class="history">
          <div v-for="line in s.history" :class="{ undone: line.undone }"><b>{{ line.what }}</b> {{ line.by }}</div>
        </div>
      </section>
    </main>
    <dialog ref="help" class="help" @click="$event.target === $refs.help && $refs.help.close()">
      <table><tr v-for="key in s.help"><th>{{ key[0] }}</th><td>{{ key[1] }}</td></tr></table>
      <p>Drag in the lanes of reward and cost to mark; a drag that begins on a mark erases. Labels are kept in
        labels.jsonl beside the episodes, which stay as they were recorded.</p>
    </dialog>
    <div v-if="notice || lost" class="notice" :class="{ lost }">
      {{ lost ? "no answer: start safe-policy review again" : notice }}</div>`,
  data: () => ({
    s: { folder: "", who: "", counts: "", progress: 0, filter: "", order: "", rows: "[]", every: "[]",
      selected: null, name: "", verdict: "", tracks: "", note: "", history: [], keys: {}, help: [],
      choices: { filter: [], order: [] } },
    draft: "", search: "", notice: "", lost: false,
  }),
  methods: {
    listen() {
      socket.onopen = () => {
        this.lost = false;
        if (this.s.selected !== null) this.send("choose", { index: this.s.selected });
      };
      socket.onmessage = (event) => this.take(JSON.parse(event.data));
      socket.onclose = () => {
        this.lost = true;
        setTimeout(() => { socket = connected(); this.listen(); }, RETRY);
      };
    },
    take(changes) {
      const { notice, ...state } = changes;
      // A note that somebody is writing is not replaced by one that came from elsewhere.
      if ("selected" in state || ("note" in state && this.draft === this.s.note)) this.draft = state.note ?? this.s.note;
      Object.assign(this.s, state);
      if (notice) this.tell(notice);
    },
    tell(notice) {
      this.notice = notice;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => { this.notice = ""; }, NOTICE);
    },
    send(what, fields) {
      if (what !== "note") this.saveNote();
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ do: what, ...fields }));
    },
    choose(index) { this.send("choose", { index }); },
    command(event) {
      if (event.command === "help") this.$refs.help.showModal();
      else this.send("command", event);
    },
    saveNote() {
      if (this.s.selected === null || this.draft === this.s.note) return;
      this.s.note = this.draft;
      this.send("note", { index: this.s.selected, text: this.draft });
    },
  },
  mounted() { this.listen(); },
};

createApp(Page).mount(document.body);
