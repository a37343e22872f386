// Sum of reward against sum of cost, one point an episode. Equal points are spread a little, always the same way.
const WIDTH = 260, HEIGHT = 190, LEFT = 34, BOTTOM = 30, EDGE = 14;

export default {
  props: { rows: String, selected: Number },
  template: `
    <svg class="scatter" :viewBox="'0 0 ${WIDTH} ${HEIGHT}'">
      <line class="axis" x1="${LEFT}" x2="${WIDTH - 6}" y1="${HEIGHT - BOTTOM}" y2="${HEIGHT - BOTTOM}"/>
      <line class="axis" x1="${LEFT}" x2="${LEFT}" y1="6" y2="${HEIGHT - BOTTOM}"/>
      <text x="${(WIDTH + LEFT) / 2}" y="${HEIGHT - 4}" text-anchor="middle">cost</text>
      <text x="10" y="${(HEIGHT - BOTTOM) / 2}" text-anchor="middle"
            transform="rotate(-90 10 ${(HEIGHT - BOTTOM) / 2})">reward</text>
      <text x="${LEFT + EDGE}" y="${HEIGHT - 17}" text-anchor="middle">{{ range.cost[0] }}</text>
      <text x="${WIDTH - EDGE}" y="${HEIGHT - 17}" text-anchor="middle">{{ range.cost[1] }}</text>
      <text x="${LEFT - 5}" y="${HEIGHT - BOTTOM - EDGE + 4}" text-anchor="end">{{ range.reward[0] }}</text>
      <text x="${LEFT - 5}" y="${EDGE + 4}" text-anchor="end">{{ range.reward[1] }}</text>
      <circle v-for="p in points" :key="p.index" :cx="p.x" :cy="p.y" :r="p.index === selected ? 6 : 3.5"
              :class="[p.verdict, { costly: p.cost > 0, chosen: p.index === selected }]" :data-index="p.index"
              @click="$emit('choose', p.index)"><title>{{ p.name }}: reward {{ p.reward }}, cost {{ p.cost }}</title></circle>
    </svg>`,
  computed: {
    shown() { return JSON.parse(this.rows).filter((row) => row.recording && !row.problem); },
    range() {
      const of = (name) => {
        const values = this.shown.map((row) => row[name]);
        const low = Math.min(0, ...values), high = Math.max(...values, low + 1);
        return [low, high].map((v) => Math.round(v * 100) / 100);
      };
      return { reward: of("reward"), cost: of("cost") };
    },
    points() {
      const place = (value, [low, high], size) => EDGE + ((value - low) / (high - low)) * (size - 2 * EDGE);
      const spread = (index, share) => (((index * share) % 1) - 0.5) * 16;
      const points = this.shown.map((row) => ({
        ...row,
        x: LEFT + place(row.cost, this.range.cost, WIDTH - LEFT) + spread(row.index, 0.7549),
        y: HEIGHT - BOTTOM - place(row.reward, this.range.reward, HEIGHT - BOTTOM) + spread(row.index, 0.5698),
      }));
      // The chosen one is drawn last, over the others.
      return points.sort((a, b) => (a.index === this.selected) - (b.index === this.selected));
    },
  },
};
