// The list of episodes. Only the rows in view are in the page, so thousands scroll as well as ten.
const ROW = 68;

export default {
  // rows: JSON, which passes the server's and Vue's watching of every value.
  props: { rows: String, selected: Number },
  template: `
    <div class="list" ref="box" @scroll.passive="top = $refs.box.scrollTop">
      <div :style="{ height: items.length * ROW + 'px', position: 'relative' }">
        <div v-for="row in inView" :key="row.index" class="entry" :data-name="row.name"
             :class="[row.verdict, { chosen: row.index === selected, bad: row.problem }]"
             :style="{ top: row.place * ROW + 'px' }" @click="$emit('choose', row.index)">
          <img v-if="row.recording && !row.problem" class="thumbnail"
               :src="'/picture/' + row.index + '/' + row.recording">
          <div v-else class="thumbnail none">{{ row.problem ? '!' : '…' }}</div>
          <div class="about">
            <div class="name" :title="row.name">{{ row.name.replace(/\\.h5$/, '') }}</div>
            <div v-if="row.problem" class="problem" :title="row.problem">{{ row.problem }}</div>
            <div v-else-if="row.recording" class="facts">
              <span>{{ row.steps }} steps</span>
              <span class="chip" :class="{ reward: row.reward > 0 }">R {{ row.reward }}</span>
              <span class="chip" :class="{ cost: row.cost > 0 }">C {{ row.cost }}</span>
              <span v-if="row.score !== null" class="chip score" title="discriminator: probability of being safe">
                {{ row.score.toFixed(2) }}</span>
              <span v-if="row.labelled" title="labels changed">✎</span>
              <span v-if="row.note" :title="row.note">✉</span>
            </div>
          </div>
          <div class="verdict">{{ { accept: '✓', reject: '✕' }[row.verdict] || '' }}</div>
        </div>
      </div>
    </div>`,
  data: () => ({ ROW, top: 0, height: 600 }),
  computed: {
    items() { return JSON.parse(this.rows); },
    inView() {
      const first = Math.max(0, Math.floor(this.top / ROW) - 3);
      return this.items.slice(first, first + Math.ceil(this.height / ROW) + 6).map((row, i) => ({ ...row, place: first + i }));
    },
  },
  watch: {
    selected() { this.reveal(); },
    items() { this.reveal(); },
  },
  methods: {
    reveal() {
      const place = this.items.findIndex((row) => row.index === this.selected);
      if (place < 0) return;
      const box = this.$refs.box;
      if (place * ROW < box.scrollTop) box.scrollTop = place * ROW;
      if ((place + 1) * ROW > box.scrollTop + box.clientHeight) box.scrollTop = (place + 1) * ROW - box.clientHeight;
    },
  },
  mounted() {
    this.observer = new ResizeObserver(() => { this.height = this.$refs.box.clientHeight; });
    this.observer.observe(this.$refs.box);
  },
  unmounted() { this.observer.disconnect(); },
};
